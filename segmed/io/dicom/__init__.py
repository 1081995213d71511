"""DICOM: scan any tree, judge and read series, write what is derived from them."""
