"""From a package and images to segmentations on the images' own grids."""

from segmed.inference.sliding import sliding_window

__all__ = ["sliding_window"]
