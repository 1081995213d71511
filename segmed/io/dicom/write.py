"""Write a volume as a classic DICOM series with synthetic identifiers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from segmed.errors import UsageError
from segmed.geometry import spacing_of
from segmed.io.atomic import whole_file
from segmed.io.dicom.stack import LPS_TO_RAS
from segmed.io.dicom.uid import uid_from
from segmed.io.digest import sha256_of_bytes
from segmed.io.limits import DEFAULT_LIMITS, check_affine
from segmed.metatensor import MetaTensor

SOP_CLASSES = {"MR": "1.2.840.10008.5.1.4.1.1.4", "CT": "1.2.840.10008.5.1.4.1.1.2"}
IMPLEMENTATION_UID = uid_from("implementation", "1")


@dataclass(frozen=True)
class Identity:
    """Whom and what a written series pretends to show; nothing here is a real person.

    Attributes:
        patient_id: Synthetic patient identifier; the name is made from it.
        description: SeriesDescription.
        series_number: Number of the series in its study.
        date: Date of study, series and content, `YYYYMMDD`.
    """

    patient_id: str = "SEGMED-0001"
    description: str = "segmed synthetic series"
    series_number: int = 1
    date: str = "20000101"


SYNTHETIC = Identity()


def write_series(
    folder: Path | str,
    image: MetaTensor,
    *,
    modality: str = "MR",
    identity: Identity = SYNTHETIC,
    omit_slices: Collection[int] = (),
) -> list[Path]:
    """Write a volume as one file a slice, explicit VR little endian.

    Whole numbers that fit 16 bits are stored as they are. Other values are stored as 16-bit whole
    numbers with a rescale slope and intercept, exact to 1/131070 of their range.
    Equal input gives equal files: all UIDs are functions of the voxels, the affine and `identity`.

    Args:
        folder: Where the files go; made if missing.
        image: `[1, columns, rows, slices]` with a rectangular grid.
        modality: `MR` or `CT`.
        identity: Synthetic patient and series.
        omit_slices: Indices of slices to leave out, to make a broken series on purpose.

    Returns:
        The files, in slice order.

    Raises:
        UsageError: The modality is unknown, or the image is not one volume.
        GeometryError: The grid is sheared or has no believable spacing.
    """
    if modality not in SOP_CLASSES:
        raise UsageError(f"unknown modality {modality!r}: known are {', '.join(SOP_CLASSES)}")
    if image.ndim != 4 or image.shape[0] != 1:
        raise UsageError(f"a series contains one volume [1, i, j, k], got {tuple(image.shape)}")
    folder = Path(folder)
    affine_ras = np.asarray(image.affine, dtype=np.float64)
    check_affine(affine_ras, DEFAULT_LIMITS, folder)
    stored, slope, intercept = _stored(image.numpy()[0])
    template = _template(stored, affine_ras, modality, identity)
    if slope != 1 or intercept != 0 or modality == "CT":
        template.RescaleSlope, template.RescaleIntercept = _ds(slope), _ds(intercept)
        template.RescaleType = "HU" if modality == "CT" else "US"
    files = []
    for index in range(stored.shape[2]):
        if index in omit_slices:
            continue
        path = folder / f"{template.Modality}{index:05d}.dcm"
        _write_slice(path, template, stored[:, :, index], affine_ras, index)
        files.append(path)
    return files


def _stored(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], float, float]:
    """16-bit whole numbers with the slope and intercept that give the values back."""
    low, high = float(values.min()), float(values.max())
    if np.array_equal(values, np.rint(values)):
        if low >= 0 and high <= 65535:
            return values.astype(np.uint16), 1.0, 0.0
        if low >= -32768 and high <= 32767:
            return values.astype(np.int16), 1.0, 0.0
    slope = float(_ds((high - low) / 65535)) or 1.0
    intercept = float(_ds(low))
    scaled = np.rint((values.astype(np.float64) - intercept) / slope)
    return np.clip(scaled, 0, 65535).astype(np.uint16), slope, intercept


def _ds(value: float) -> DSfloat:
    """A decimal string of at most 16 characters."""
    return DSfloat(float(value), auto_format=True)


def _template(
    stored: npt.NDArray[Any],
    affine_ras: npt.NDArray[np.float64],
    modality: str,
    identity: Identity,
) -> Dataset:
    """All that the slices of the series share."""
    key = (
        _digest(stored),
        affine_ras.tobytes().hex(),
        modality,
        *map(str, identity.__dict__.values()),
    )
    study = (identity.patient_id, identity.date)
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if modality == "CT" else "OTHER"]
    dataset.SOPClassUID = SOP_CLASSES[modality]
    for name in ("StudyDate", "SeriesDate", "ContentDate", "AcquisitionDate"):
        setattr(dataset, name, identity.date)
    for name in ("StudyTime", "ContentTime", "AcquisitionTime", "SeriesTime"):
        setattr(dataset, name, "120000")
    dataset.AccessionNumber = ""
    dataset.Modality = modality
    dataset.Manufacturer = "segmed"
    dataset.ReferringPhysicianName = ""
    dataset.SeriesDescription = identity.description
    dataset.PatientName = f"{identity.patient_id}^Synthetic"
    dataset.PatientID = identity.patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = ""
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "synthetic identifiers"
    dataset.StudyInstanceUID = uid_from("study", *study)
    dataset.SeriesInstanceUID = uid_from("series", *key)
    dataset.FrameOfReferenceUID = uid_from("frame of reference", *key)
    dataset.StudyID = "1"
    dataset.SeriesNumber = identity.series_number
    dataset.AcquisitionNumber = 1
    dataset.PositionReferenceIndicator = ""
    dataset.PatientPosition = ""
    dataset.Laterality = ""
    _acquisition(dataset, modality)
    _plane(dataset, stored, affine_ras)
    return dataset


def _digest(array: npt.NDArray[Any]) -> str:
    return sha256_of_bytes(np.ascontiguousarray(array).tobytes())


def _acquisition(dataset: Dataset, modality: str) -> None:
    """Set the attributes that the MR and CT modules require; empty where the standard allows."""
    if modality == "MR":
        dataset.ScanningSequence = "RM"
        dataset.SequenceVariant = "NONE"
        dataset.ScanOptions = ""
        dataset.MRAcquisitionType = "3D"
        dataset.RepetitionTime = None
        dataset.EchoTime = None
        dataset.EchoTrainLength = None
    else:
        dataset.KVP = None


def _plane(dataset: Dataset, stored: npt.NDArray[Any], affine_ras: npt.NDArray[np.float64]) -> None:
    """Geometry and pixel format."""
    edges = spacing_of(affine_ras)
    lps = LPS_TO_RAS @ affine_ras
    cosines = [*(lps[:3, 0] / edges[0]), *(lps[:3, 1] / edges[1])]
    dataset.ImageOrientationPatient = [_ds(value) for value in cosines]
    dataset.PixelSpacing = [_ds(edges[1]), _ds(edges[0])]
    dataset.SliceThickness = _ds(edges[2])
    dataset.SpacingBetweenSlices = _ds(edges[2])
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape[1], stored.shape[0]
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    if dataset.Modality == "CT":
        del dataset.SpacingBetweenSlices


def _write_slice(
    path: Path,
    template: Dataset,
    pixels: npt.NDArray[Any],
    affine_ras: npt.NDArray[np.float64],
    index: int,
) -> None:
    dataset = pydicom.Dataset(template)
    position = (LPS_TO_RAS @ affine_ras @ np.array([0.0, 0.0, index, 1.0]))[:3]
    dataset.SOPInstanceUID = uid_from("instance", str(template.SeriesInstanceUID), str(index))
    dataset.InstanceNumber = index + 1
    dataset.ImagePositionPatient = [_ds(value) for value in position]
    dataset.PixelData = (
        np.ascontiguousarray(pixels.T).astype(pixels.dtype.newbyteorder("<")).tobytes()
    )
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = file_meta(dataset)
    with whole_file(path) as partial:
        pydicom.dcmwrite(partial, dataset, enforce_file_format=True)


def file_meta(dataset: Dataset) -> FileMetaDataset:
    """The file meta information of an object to be written in explicit VR little endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = "SEGMED"
    return meta
