"""Single-frame DICOM images of one plane, as devices write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CLASSES = {
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "MG": "1.2.840.10008.5.1.4.1.1.1.2",
    "OP": "1.2.840.10008.5.1.4.1.1.77.1.5.1",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "OT": "1.2.840.10008.5.1.4.1.1.7",
}
"""SOP classes by modality; OT is a secondary capture."""


def write_plane(
    path: Path,
    pixels: np.ndarray,
    *,
    modality: str = "DX",
    number: int = 1,
    elements: Mapping[str, Any] | None = None,
) -> Path:
    """Write one image of rows x columns (x 3), little endian.

    Args:
        path: Where to.
        pixels: uint8 or uint16.
        modality: Key of `CLASSES`.
        number: Number in its series.
        elements: Further elements by keyword.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CLASSES[modality]
    dataset.file_meta.MediaStorageSOPClassUID = CLASSES[modality]
    uid = f"2.25.1{sum(map(ord, modality))}{number}"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.StudyInstanceUID = "2.25.11"
    dataset.SeriesInstanceUID = f"2.25.12{sum(map(ord, modality))}"
    dataset.PatientID, dataset.Modality, dataset.InstanceNumber = "p1", modality, number
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
    dataset.PixelData = pixels.tobytes()
    for name, value in (elements or {}).items():
        setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def region(delta_cm: float) -> Dataset:
    """A two-dimensional ultrasound region with square pixels."""
    found = Dataset()
    found.RegionSpatialFormat, found.RegionDataType = 1, 1
    found.PhysicalUnitsXDirection = found.PhysicalUnitsYDirection = 3
    found.PhysicalDeltaX = found.PhysicalDeltaY = delta_cm
    return found
