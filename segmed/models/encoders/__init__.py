"""Feature extractors that publish the channels and strides of their maps."""
