"""Names that a prediction is asked for by: engines and output formats, without what serves them."""

from __future__ import annotations

from typing import Literal

EngineName = Literal["auto", "steady", "torch", "compile", "openvino"]

ENGINES: tuple[str, ...] = ("auto", "steady", "torch", "compile", "openvino")
"""Every `EngineName`."""

OutputFormat = Literal["nifti", "dicom-seg", "rtstruct", "probabilities"]

FORMATS: dict[str, str] = {
    "nifti": ".nii.gz",
    "dicom-seg": ".seg.dcm",
    "rtstruct": ".rtstruct.dcm",
    "probabilities": ".probs.nii.gz",
}
"""Suffix of each output format."""
