"""Judge a DICOM series: usable as one volume, or refused with its reason.

Reasons: `missing_slice`, `duplicate_slice`, `uneven_slices`, `tilt`, `shifted_slices`,
`mixed_orientation`, `mixed_size`, `mixed_spacing`, `mixed_patient`, `mixed_study`,
`mixed_modality`, `mixed_frame_of_reference`, `mixed_photometric`, `mixed_rescale`, `localiser`,
`mosaic`, `no_frame_positions`, `secondary_capture`, `projection`, `colour`, `unknown_photometric`,
`transfer_syntax`, `truncated`, `empty_file`, `unreadable`, `missing_geometry`, `modality_lut`,
`bad_scaling`, `bad_pixel_format`, `excess_pixels`, `absurd_spacing`, `bad_orientation`,
`no_pixels`, `not_image`, `too_large`, and one for each trait by which the volumes of one series
differ (`several_echoes`, `several_time_points`, ..., see `traits`), `several_volumes` where no
trait is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from pydicom.uid import UID

from segmed.geometry import Affine
from segmed.io.dicom.checks import CHECKS, SeriesRefusal, is_capture
from segmed.io.dicom.copies import without_copies
from segmed.io.dicom.frames import Slice
from segmed.io.dicom.header import DicomHeader, tolerant_pydicom
from segmed.io.dicom.stack import STEP_TOLERANCE, StackFault, stack
from segmed.io.dicom.traits import NO_AGENT, drifting
from segmed.io.dicom.uid import short_hash

MOST_STEPS = 1000
"""Largest plausible ratio of the distance of slices and the stated one."""

BURNED_IN = "BurnedInAnnotation is YES: its pixels may show text about the patient"
"""Note on an image whose pixels are not to be shown where names are not."""

MIN_SPACING_MM, MAX_SPACING_MM = 1e-3, 200.0


@dataclass(frozen=True)
class SeriesAudit:
    """Audit of one series.

    Attributes:
        series_uid: SeriesInstanceUID; empty for files too damaged to say.
        study_uid: StudyInstanceUID.
        files: Its files; along the slice normal where usable, else by name. A multi-frame file
            is given once.
        usable: Whether it is one sound volume.
        reason: Stable code of the refusal; None where usable.
        message: One line on the refusal, without identifiers; empty where usable.
        offending: The files at fault, where they are known.
        modality: Such as `MR`.
        description: SeriesDescription; may be personal: never log it.
        body_part: BodyPartExamined.
        has_contrast: Whether an image names a contrast agent.
        shape: Columns, rows, slices.
        spacing_mm: Voxel edge along each axis of `shape`.
        affine_ras: 4x4, indices (column, row, slice) to RAS+ mm; None where refused.
        slices: File and frame of each slice, along the normal.
        patient_key: Short hash of the patient identifier, for grouping.
        frame_of_reference: FrameOfReferenceUID.
        notes: What is odd, though usable.
        copies: Files with the data set of one of `files`, byte for byte; they are not used.
        is_encapsulated: Whether pixels of a file are compressed, and so need a decoder.
        is_plane: One image of one plane, for a model of planes; see `plane`.
    """

    series_uid: str = field(repr=False)
    study_uid: str = field(repr=False)
    files: tuple[Path, ...]
    usable: bool
    reason: str | None = None
    message: str = ""
    offending: tuple[Path, ...] = ()
    modality: str = ""
    description: str = field(default="", repr=False)
    body_part: str = ""
    has_contrast: bool = False
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    affine_ras: Affine | None = field(default=None, compare=False)
    slices: tuple[tuple[Path, Slice], ...] = field(default=(), repr=False)
    patient_key: str = ""
    frame_of_reference: str = field(default="", repr=False)
    notes: tuple[str, ...] = ()
    copies: tuple[Path, ...] = ()
    is_encapsulated: bool = False
    is_plane: bool = False

    @property
    def name(self) -> str:
        """A short name for messages: a hash of the series UID, or the first file's folder."""
        if self.series_uid:
            return f"series {short_hash(self.series_uid)}"
        return f"file {self.files[0].name}" if self.files else "no file"


@tolerant_pydicom()
def judge(headers: Sequence[DicomHeader]) -> SeriesAudit:
    """Audit the files of one series, as `grouping` puts them together.

    Args:
        headers: At least one. Byte-equal copies are passed over.

    Returns:
        The audit.
    """
    headers, copies = without_copies(sorted(headers, key=lambda header: str(header.path)))
    verdict = next((found for check in CHECKS if (found := check(headers))), None)
    first = headers[0]
    pairs = [(header.path, part) for header in headers for part in header.slices]
    shape = (first.columns, first.rows, len(pairs))
    files: Iterable[Path] = [header.path for header in headers]
    affine: Affine | None = None
    spacing: tuple[float, ...] = ()
    ordered: tuple[tuple[Path, Slice], ...] = ()
    if verdict is None:
        try:
            affine, spacing, ordered = stack(pairs)
            files = dict.fromkeys(path for path, _ in ordered)
        except StackFault as fault:
            verdict = SeriesRefusal(fault.reason, str(fault), fault.offending)
    if verdict is None:
        verdict = _thinned(headers, ordered, spacing)
    if verdict is None and not all(MIN_SPACING_MM <= e <= MAX_SPACING_MM for e in spacing):
        edges = tuple(float(f"{e:.6g}") for e in spacing)
        verdict = SeriesRefusal("absurd_spacing", f"the voxel edges are {edges} mm")
    return SeriesAudit(
        series_uid=first.series_uid,
        study_uid=first.study_uid,
        files=tuple(files),
        usable=verdict is None,
        reason=None if verdict is None else verdict.reason,
        message="" if verdict is None else verdict.message,
        offending=() if verdict is None else verdict.offending,
        modality=first.modality,
        description=first.description,
        body_part=first.body_part,
        has_contrast=any(_names_agent(header.contrast_agent) for header in headers),
        shape=shape,
        spacing_mm=spacing,
        affine_ras=affine if verdict is None else None,
        slices=ordered,
        patient_key=first.patient_key,
        frame_of_reference=first.frame_of_reference,
        notes=_notes(headers, len(copies)) if verdict is None else (),
        copies=copies,
        is_encapsulated=any(_is_encapsulated(header.transfer_syntax) for header in headers),
    )


def _names_agent(text: str) -> bool:
    """Return whether ContrastBolusAgent names an agent, and not its absence."""
    return text.strip().upper() not in NO_AGENT


def _is_encapsulated(syntax: str) -> bool:
    """Return whether a transfer syntax compresses pixels; an unknown one may."""
    uid = UID(syntax)
    return bool(syntax) and (not uid.is_transfer_syntax or uid.is_encapsulated)


def _thinned(
    headers: Sequence[DicomHeader],
    ordered: Sequence[tuple[Path, Slice]],
    spacing: tuple[float, ...],
) -> SeriesRefusal | None:
    """Refuse an even stack of every second (third, ...) slice of what was acquired.

    Its distance alone looks sound. It is a multiple of the stated one, and the instance numbers
    leave as many out.
    """
    stated = ordered[0][1].step if len(ordered) > 1 else None
    number_of = {header.path: header.instance_number for header in headers}
    numbers = [n for path, _ in ordered if (n := number_of[path]) is not None]
    if not stated or len(headers) != len(ordered) or len(numbers) != len(ordered):
        return None
    ratio = spacing[2] / abs(stated)
    if not 1.5 < ratio < MOST_STEPS:
        return None
    times = round(ratio)
    if abs(ratio - times) > STEP_TOLERANCE * times:
        return None
    if any(abs(after - before) < times for before, after in pairwise(numbers)):
        return None
    missing = (times - 1) * (len(ordered) - 1)
    return SeriesRefusal(
        "missing_slice",
        f"slices are {spacing[2]:.2f} mm apart, the header states {abs(stated):.2f} mm, and the "
        f"instance numbers leap: {missing} {'slices are' if missing > 1 else 'slice is'} missing",
    )


def _notes(headers: Sequence[DicomHeader], num_copies: int) -> tuple[str, ...]:
    notes = []
    if num_copies:
        notes.append(f"copies of its files are passed over: {num_copies}")
    first = headers[0]
    if is_capture(first):
        notes.append("stored as secondary capture, though with geometry")
    if any(header.photometric == "MONOCHROME1" for header in headers):
        notes.append("MONOCHROME1: stored values are kept, low is bright")
    if any(header.has_text for header in headers):
        notes.append(BURNED_IN)
    if any(header.is_lossy for header in headers):
        notes.append("compressed with loss: values are near those of the scanner")
    parts = [part for header in headers for part in header.slices]
    if first.modality == "CT" and not any(any(part.rescale) for part in parts):
        notes.append("CT without rescaling: its values may not be Hounsfield units")
    if len({(header.series_number, header.description) for header in headers}) > 1:
        notes.append("series numbers or descriptions differ among its images")
    notes.extend(drifting([part.traits for part in parts]))
    made = max((header.images_in_acquisition or 0 for header in headers), default=0)
    if len(headers) < made:
        notes.append(f"the scanner made {made} images, {len(headers)} were found")
    given = sorted(h.instance_number for h in headers if h.instance_number is not None)
    if len(set(given)) > 1 and given[-1] - given[0] + 1 > len(given):
        notes.append(f"instance numbers run from {given[0]} to {given[-1]} for {len(given)} files")
    return tuple(notes)
