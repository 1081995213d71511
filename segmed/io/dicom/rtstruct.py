"""Write label maps as DICOM RT structure sets: closed planar contours on each slice.

A contour runs half-way between voxels of the structure and its neighbours, so that every voxel
centre is on its right side: rasterising gives the label map back. Holes are joined to their
outline by keyholes, see `segmed.io.dicom.keyhole`. The objects are in implicit VR, since contours
of more than 64 KiB do not fit the explicit form of a decimal string. Identifiers are functions of
patient, study, series, content and model; dates and times are those of the source images: equal
input gives equal bytes. What was odd about the input is in StructureSetDescription.

Source:
    DICOM PS3.3 A.19 and C.8.8.5 to C.8.8.8 (RT structure set).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pydicom
import torch
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from segmed.geometry import Affine
from segmed.io.atomic import whole_file
from segmed.io.colours import structure_colour
from segmed.io.dicom.header import tolerant_pydicom
from segmed.io.dicom.keyhole import outlines
from segmed.io.dicom.references import (
    References,
    complete_headers,
    sources_and_slices,
)
from segmed.io.dicom.stack import LPS_TO_RAS
from segmed.io.dicom.uid import uid_from
from segmed.io.dicom.write import file_meta
from segmed.metatensor import MetaTensor

if TYPE_CHECKING:
    from segmed.structures import LabelClass

RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
STUDY_COMPONENT = "1.2.840.10008.3.1.2.3.1"
MAX_DESCRIPTION = 1024
"""Characters that StructureSetDescription (3006,0006), a short text, may have."""

DECIMALS = 4
"""Digits of a contour coordinate behind the point, in mm."""

COPIED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName",
    "StudyID", "StudyDescription", "FrameOfReferenceUID", "PositionReferenceIndicator",
)  # fmt: skip


def write_rtstruct(
    path: Path | str,
    label: torch.Tensor,
    *,
    like: MetaTensor,
    labels: Sequence[LabelClass],
    model_name: str,
    model_version: str,
) -> Path:
    """Write a label map as one RT structure set; whole or not at all.

    Args:
        path: `.dcm`.
        label: `[i, j, k]` or `[1, i, j, k]` on the grid of `like`.
        like: The image, as it was read from its DICOM series.
        labels: The structures; each becomes a region of interest, empty ones without contours.
        model_name: Name of what made the label map.
        model_version: Its version, or the hash of its package.

    Returns:
        `path`.

    Raises:
        UsageError: The image is not from DICOM, or `labels` is empty.
        GeometryError: The label does not fit the image.
        ImageError: A value has no structure.
    """
    path = Path(path)
    references, slices = sources_and_slices(label, like, labels, path)
    with tolerant_pydicom(), complete_headers(path):
        dataset = _frame_of_structures(references, model_name, model_version)
    to_lps = LPS_TO_RAS @ np.asarray(like.affine, dtype=np.float64)
    dataset.StructureSetROISequence = []
    dataset.ROIContourSequence = []
    dataset.RTROIObservationsSequence = []
    for number, entry in enumerate(labels, start=1):
        contours = _contours(entry.mask(slices), to_lps, references)
        dataset.StructureSetROISequence.append(_region(number, entry, dataset, references))
        dataset.ROIContourSequence.append(_drawn(number, contours))
        dataset.RTROIObservationsSequence.append(_observation(number, entry, references))
    dataset.file_meta = file_meta(dataset)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    with tolerant_pydicom(), whole_file(path) as partial:
        references.texts.restore(dataset, references.datasets[0])
        pydicom.dcmwrite(partial, dataset, enforce_file_format=True)
    return path


def _frame_of_structures(references: References, model_name: str, model_version: str) -> Dataset:
    """Patient, study, series and references."""
    first = references.datasets[0]
    identity = (references.key, model_name, model_version)
    dataset = Dataset()
    for name in COPIED:
        if name in first:
            setattr(dataset, name, first.get(name))
    dataset.SOPClassUID = RT_STRUCTURE_SET
    dataset.SOPInstanceUID = uid_from("rtstruct instance", *identity)
    dataset.SeriesInstanceUID = uid_from("rtstruct series", *identity)
    dataset.Modality = "RTSTRUCT"
    dataset.SeriesNumber = 9001
    dataset.SeriesDescription = f"Structures by {model_name}"[:64]
    dataset.OperatorsName = ""
    dataset.InstanceNumber = 1
    dataset.Manufacturer = "segmed"
    dataset.ManufacturerModelName = model_name[:64]
    dataset.SoftwareVersions = model_version[:64]
    dataset.DeviceSerialNumber = "0"
    dataset.StructureSetLabel = "SEGMED"
    if references.notes:
        dataset.StructureSetDescription = references.remarks[:MAX_DESCRIPTION]
    dataset.StructureSetDate, dataset.StructureSetTime = references.moment
    dataset.ApprovalStatus = "UNAPPROVED"
    series = Dataset()
    series.SeriesInstanceUID = first.SeriesInstanceUID
    series.ContourImageSequence = [_image(source) for source in references.datasets]
    study = Dataset()
    study.ReferencedSOPClassUID = STUDY_COMPONENT
    study.ReferencedSOPInstanceUID = first.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    space = Dataset()
    space.FrameOfReferenceUID = first.FrameOfReferenceUID
    space.RTReferencedStudySequence = [study]
    dataset.ReferencedFrameOfReferenceSequence = [space]
    return dataset


def _image(source: Dataset, frame: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if frame is not None:
        item.ReferencedFrameNumber = frame + 1
    return item


def _region(number: int, entry: LabelClass, dataset: Dataset, references: References) -> Dataset:
    item = Dataset()
    item.ROINumber = number
    item.ReferencedFrameOfReferenceUID = dataset.FrameOfReferenceUID
    item.ROIName = references.texts.fitted(entry.name, f"label {entry.value}")[:64]
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    return item


def _observation(number: int, entry: LabelClass, references: References) -> Dataset:
    item = Dataset()
    item.ObservationNumber = number
    item.ReferencedROINumber = number
    item.RTROIInterpretedType = "ORGAN"
    item.ROIInterpreter = ""
    if entry.code is not None:
        code = Dataset()
        code.CodeValue = entry.code.value
        code.CodingSchemeDesignator = entry.code.scheme
        code.CodeMeaning = references.texts.fitted(entry.code.meaning, entry.code.value)[:64]
        item.RTROIIdentificationCodeSequence = [code]
    return item


def _drawn(number: int, contours: list[Dataset]) -> Dataset:
    item = Dataset()
    item.ReferencedROINumber = number
    item.ROIDisplayColor = list(structure_colour(number - 1))
    if contours:
        item.ContourSequence = contours
    return item


def _contours(mask: npt.NDArray[np.bool_], to_lps: Affine, references: References) -> list[Dataset]:
    """All closed contours of one structure; mask `[slices, rows, columns]`."""
    found = []
    sources = references.source_of_slice
    for k in np.flatnonzero(mask.any(axis=(1, 2))):
        source, frame = sources[k]
        frames = int(source.get("NumberOfFrames") or 1)
        for line in outlines(mask[k]):
            index = np.column_stack([line, np.full(len(line), k), np.ones(len(line))])
            points = np.round((index @ to_lps.T)[:, :3], DECIMALS) + 0.0  # no negative zero
            item = Dataset()
            item.ContourImageSequence = [_image(source, frame if frames > 1 else None)]
            item.ContourGeometricType = "CLOSED_PLANAR"
            item.NumberOfContourPoints = len(points)
            item.ContourData = [format_number_as_ds(float(value)) for value in points.ravel()]
            found.append(item)
    return found
