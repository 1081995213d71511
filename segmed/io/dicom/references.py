"""The source images of a derived DICOM object: in slice order, repaired for the writers.

Only copies in memory are repaired; the files are unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pydicom
import torch
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from segmed.errors import GeometryError, ImageError, SegmedError, UsageError
from segmed.formats import PLANE_FORMAT
from segmed.io.dicom.audit import SeriesAudit, judge
from segmed.io.dicom.frames import slices_of
from segmed.io.dicom.header import read_header, tolerant_pydicom
from segmed.io.dicom.plane import planes_of
from segmed.io.dicom.read import require_usable
from segmed.io.dicom.texts import SourceTexts
from segmed.io.digest import sha256_of_file, sha256_of_stream, sha256_of_text
from segmed.io.label import smallest_type
from segmed.io.read import grid_of, source_of
from segmed.metatensor import MetaTensor

if TYPE_CHECKING:
    from segmed.structures import LabelClass

EMPTY_IF_MISSING = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName", "StudyID", "SeriesNumber", "InstanceNumber",
    "PositionReferenceIndicator",
)  # fmt: skip
"""Type 2 attributes: they must be there and may be empty. Real files lack some."""

REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
"""Type 1 attributes that derived objects copy or refer to; of volumes also the next one."""

FRAME_OF_REFERENCE = "FrameOfReferenceUID"
COORDINATES = (FRAME_OF_REFERENCE, "ImagePositionPatient", "ImageOrientationPatient")
STAND_IN_CLASS = SecondaryCaptureImageStorage
"""Class of a plane's copy in memory: of ophthalmic photographs highdicom expects groups of
multi-frame images, which they do not have."""

READ_FROM_DICOM = ("dicom", PLANE_FORMAT)

IDENTIFYING = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
"""Elements that say whose image a file contains; UIDs alone are equal in two patients at times."""

GEOMETRY_TOLERANCE_MM = 1e-2

DATED_BY = ("Series", "Study", "Content")
"""Whose date and time a derived object takes, the first that is sound."""

DATES = ("PatientBirthDate", "StudyDate")
"""Copied dates; an invalid one is left empty, since writers refuse it and quote it."""

SEXES = ("M", "F", "O")
"""Values of PatientSex; another is left empty, since writers refuse it."""

SOUND_TIME = re.compile(r"(([01][0-9]|2[0-3])([0-5][0-9]([0-5][0-9](\.[0-9]{1,6})?)?)?)?")

UNKNOWN_MOMENT = ("19000101", "000000")
"""Date and time of an object whose source images have none."""


@dataclass(frozen=True)
class References:
    """The images that a segmentation belongs to.

    Attributes:
        audit: Their series.
        datasets: One a file, without pixels, with one orientation and all type 2 attributes.
        frames: Frame of each slice, in slice order; all 0 for classic files.
        key: Identity and content of the input, of which the identifiers of results are functions:
            patient, study, series, instances, places and stored pixels, of all channels.
        notes: Remarks on the input, without identifiers.
        texts: Texts of the first file, which `datasets` have as placeholders.
        source_class: SOP class of the first file; `datasets` of a plane have another one.
    """

    audit: SeriesAudit
    datasets: tuple[Dataset, ...]
    frames: tuple[int, ...]
    key: str
    texts: SourceTexts
    notes: tuple[str, ...] = ()
    source_class: str = ""

    @property
    def source_of_slice(self) -> tuple[tuple[Dataset, int], ...]:
        """Data set and frame of each slice, in slice order."""
        by_path = dict(zip(self.audit.files, self.datasets, strict=True))
        return tuple((by_path[path], part.frame) for path, part in self.audit.slices)

    @property
    def remarks(self) -> str:
        """The notes as one text, for an element of the result; empty without any."""
        return "; ".join(self.notes)

    @property
    def moment(self) -> tuple[str, str]:
        """Date `YYYYMMDD` and time `HHMMSS` of the source images, for objects made from them.

        The clock is not asked: equal input shall give equal bytes.

        Source:
            DICOM PS3.5 section 6.2 (DA and TM; the form with full stops is that of ACR-NEMA).
        """
        first = self.datasets[0]
        for owner in DATED_BY:
            day = _day(str(first.get(f"{owner}Date") or ""))
            if day is not None:
                return day, _clock_time(str(first.get(f"{owner}Time") or ""))
        return UNKNOWN_MOMENT


def set_moment(result: Dataset, day: str, time: str) -> None:
    """Replace the clock's dates and times in a derived object: equal input gives equal bytes."""
    result.InstanceCreationDate = result.ContentDate = day
    result.InstanceCreationTime = result.ContentTime = time
    for item in result.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in item:
            item.ContributionDateTime = day + time


def _day(text: str) -> str | None:
    """A date as `YYYYMMDD`, or None if the text is not one."""
    digits = text.strip().replace(".", "")
    if not re.fullmatch(r"[0-9]{8}", digits):
        return None
    try:
        date.fromisoformat(f"{digits[:4]}-{digits[4:6]}-{digits[6:]}")
    except ValueError:
        return None
    return digits


def _clock_time(text: str) -> str:
    """A time as `HHMMSS`; midnight if the text is not one."""
    digits = text.strip().replace(":", "").split(".")[0].ljust(6, "0")
    is_sound = re.fullmatch(r"([01][0-9]|2[0-3])[0-5][0-9][0-5][0-9]", digits)
    return digits if is_sound else UNKNOWN_MOMENT[1]


def references_of(like: MetaTensor) -> References:
    """Load the source images of an image that was read from DICOM.

    Args:
        like: The image; its affine must still be that of its files.

    Returns:
        Its references.

    Raises:
        UsageError: The image was not read from a DICOM series.
        GeometryError: The image has been moved or resampled since it was read.
        ImageError: The files are no longer a sound series.
    """
    source = source_of(like)
    if source is None or source.format not in READ_FROM_DICOM:
        raise UsageError(
            "a DICOM result needs an image that was read from a DICOM series, this came from "
            f"{'memory' if source is None else source.format}; write .nii.gz instead"
        )
    with tolerant_pydicom():
        headers = [read_header(path) for path in source.paths]
        audit = judge([header for header in headers if header is not None])
        if source.format == PLANE_FORMAT:
            (audit,) = planes_of([audit])
        require_usable(audit)
        _check_unmoved(like, audit)
        datasets = tuple(
            pydicom.dcmread(p, stop_before_pixels=True, force=True) for p in audit.files
        )
        texts = SourceTexts.of(datasets[0])
        source_class = str(datasets[0].get("SOPClassUID", ""))
        for dataset in datasets:
            SourceTexts.of(dataset).replace_by_stand_ins(dataset)
            _mend(dataset, audit)
            if audit.is_plane:
                _flatten(dataset)
        parts = [
            _identity(path) if channel.format in READ_FROM_DICOM else sha256_of_file(path)
            for channel in (source, *source.other_channels)
            for path in channel.paths
        ]
    key = sha256_of_text("\n".join(parts))
    frames = tuple(part.frame for _, part in audit.slices)
    return References(audit, datasets, frames, key, texts, source.notes, source_class)


def _identity(path: Path) -> str:
    """Patient and position of a file's image, and the digest of its stored pixels.

    Other elements may change on the way through an archive, and leave the image what it is.
    """
    with path.open("rb") as stream:
        dataset = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
        if stream.tell() == path.stat().st_size:  # inflated as a whole: the pixels are read
            stream.seek(0)
        pixels = sha256_of_stream(stream)
    stated = [str(dataset.get(name, "")) for name in IDENTIFYING]
    places = [
        (part.frame, part.position, part.orientation, part.spacing, part.slope, part.intercept)
        for part in slices_of(dataset)
    ]
    return repr((stated, places, pixels))


def _check_unmoved(like: MetaTensor, audit: SeriesAudit) -> None:
    grid = grid_of(like)
    moved = audit.affine_ras is None or not np.allclose(
        grid.affine_ras, audit.affine_ras, atol=GEOMETRY_TOLERANCE_MM
    )
    if grid.shape != audit.shape or moved:
        raise GeometryError(
            f"the image of shape {grid.shape} no longer has the grid of its DICOM series "
            f"{audit.shape}; pass it as it was read"
        )


def _mend(dataset: Dataset, audit: SeriesAudit) -> None:
    for name in EMPTY_IF_MISSING:
        if name not in dataset:
            setattr(dataset, name, None if name.endswith("Number") else "")
    for name in DATES:
        setattr(dataset, name, _day(str(dataset.get(name) or "")) or "")
    sex = str(dataset.PatientSex or "").strip(" \0").upper()
    dataset.PatientSex = sex if sex in SEXES else ""
    if not SOUND_TIME.fullmatch(str(dataset.StudyTime or "")):
        dataset.StudyTime = ""
    if "ImageOrientationPatient" in dataset:
        first = audit.slices[0][1].orientation
        dataset.ImageOrientationPatient = list(first or ())


def _flatten(dataset: Dataset) -> None:
    """Leave out coordinates of a copy: a plane and its result are related pixel by pixel."""
    for name in COORDINATES:
        if name in dataset:
            delattr(dataset, name)
    dataset.SOPClassUID = STAND_IN_CLASS
    if "NumberOfFrames" in dataset:
        del dataset.NumberOfFrames


def name_source_class(result: Dataset, references: References) -> None:
    """Put the class of a plane into the references of a result, instead of that of its copy."""
    instance = references.datasets[0].SOPInstanceUID

    def correct(dataset: Dataset, element: DataElement) -> None:
        if element.keyword != "ReferencedSOPClassUID":
            return
        if dataset.get("ReferencedSOPInstanceUID") == instance:
            element.value = references.source_class

    result.walk(correct)


@contextmanager
def complete_headers(path: Path) -> Iterator[None]:
    """Refuse by name what a writer of derived objects cannot make of the source's headers.

    Args:
        path: The file to be written, for messages.

    Raises:
        ImageError: `poor_header`. The writer's own words are left out: they quote identifiers.
    """
    try:
        yield
    except SegmedError:
        raise
    except AttributeError as error:
        missing = error.name or "an attribute"
        raise _poor_header(path, f"they lack {missing}") from error
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise _poor_header(path, f"{type(error).__name__} in the DICOM writer") from error


def sources_and_slices(
    label: torch.Tensor, like: MetaTensor, labels: Sequence[LabelClass], path: Path
) -> tuple[References, npt.NDArray[np.generic]]:
    """Source images and slices of a label map from which a derived object is to be made.

    Args:
        label: `[*spatial]` or `[1, *spatial]` on the grid of `like`.
        like: The image, as it was read from its DICOM series.
        labels: The structures of the object.
        path: The file to be written, for messages.

    Raises:
        UsageError: The image is not from DICOM, or `labels` is empty.
        GeometryError: The label does not fit the image.
        ImageError: `poor_header`, or a value has no structure.
    """
    if not labels:
        raise UsageError(f"{path.name}: a DICOM result needs at least one label, none was given")
    references = references_of(like)
    _require_headers(references, path)
    return references, _label_slices(label, like, tuple(entry.value for entry in labels), path)


def _require_headers(references: References, path: Path) -> None:
    for dataset in references.datasets:
        needed = REQUIRED if references.audit.is_plane else (*REQUIRED, FRAME_OF_REFERENCE)
        for name in needed:
            if not dataset.get(name) or not references.source_class:
                raise _poor_header(path, f"they lack {name}")


def _poor_header(path: Path, why: str) -> ImageError:
    return ImageError(
        f"{path.name}: the headers of the source images do not suffice for a DICOM result ({why}); "
        "--format nifti needs less",
        reason="poor_header",
        paths=[path],
    )


def _label_slices(
    label: torch.Tensor, like: MetaTensor, values: tuple[int, ...], path: Path
) -> npt.NDArray[np.generic]:
    """A label map as `[slices, rows, columns]`, uint8 or uint16; of a plane one slice."""
    array = torch.as_tensor(label).detach().cpu().numpy()
    shape = grid_of(like).shape
    array = array[0] if array.shape == (1, *shape) else array
    if array.shape != shape:
        raise GeometryError(
            f"{path.name}: a label of shape {array.shape} does not fit the image {shape}"
        )
    whole = smallest_type(array, path)
    strange = sorted(set(np.unique(whole).tolist()) - {0, *values})
    if strange:
        raise ImageError(
            f"{path.name}: label values {strange[:5]} have no segment; known are {list(values)}",
            reason="unknown_label",
            paths=[path],
        )
    if whole.ndim == 2:  # a plane has its rows first
        return np.ascontiguousarray(whole[None])
    return np.ascontiguousarray(np.transpose(whole, (2, 1, 0)))
