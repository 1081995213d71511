"""Judge a DICOM series: usable as one volume, or refused with its reason.

Reasons: `missing_slice`, `duplicate_slice`, `uneven_slices`, `tilt`, `shifted_slices`,
`mixed_orientation`, `mixed_size`, `mixed_spacing`, `mixed_patient`, `mixed_study`,
`mixed_modality`, `mixed_frame_of_reference`, `mixed_photometric`, `several_time_points`,
`several_echoes`, `several_b_values`, `localiser`, `mosaic`, `no_frame_positions`,
`secondary_capture`, `colour`, `transfer_syntax`, `truncated`, `empty_file`, `unreadable`,
`missing_geometry`, `modality_lut`, `absurd_spacing`, `bad_orientation`, `no_pixels`, `not_image`,
`too_large`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from segmed.geometry import Affine
from segmed.io.dicom.frames import Slice
from segmed.io.dicom.header import DicomHeader, Fault
from segmed.io.dicom.stack import STEP_TOLERANCE, StackFault, stack
from segmed.io.dicom.uid import short_hash

NO_IMAGES = frozenset({"SEG", "PR", "SR", "KO", "RTDOSE", "RTSTRUCT", "RTPLAN", "REG"})
"""Modalities whose pixels, if any, are no slices to be segmented."""

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SPACING_TOLERANCE_MM = 1e-3
ORIENTATION_TOLERANCE = 1e-4
"""Largest difference of direction cosines within one series; real series differ in the last digit
that their text holds."""

MIN_SPACING_MM, MAX_SPACING_MM = 1e-3, 200.0


@dataclass(frozen=True)
class SeriesAudit:
    """What a scan says of one series.

    Attributes:
        series_uid: SeriesInstanceUID; empty for files too damaged to say.
        study_uid: StudyInstanceUID.
        files: Its files; along the slice normal where usable, else by name. A multi-frame file
            stands once.
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
        is_encapsulated: Whether pixels of a file are compressed, and so need a decoder.
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
    is_encapsulated: bool = False

    @property
    def name(self) -> str:
        """A short name for messages: a hash of the series UID, or the first file's folder."""
        if self.series_uid:
            return f"series {short_hash(self.series_uid)}"
        return f"file {self.files[0].name}" if self.files else "no file"


@dataclass(frozen=True)
class Verdict:
    """A refusal: its code, its one-line message and the files at fault."""

    reason: str
    message: str
    offending: tuple[Path, ...] = ()


def judge(headers: Sequence[DicomHeader]) -> SeriesAudit:
    """Audit the files that carry one SeriesInstanceUID.

    Args:
        headers: At least one.

    Returns:
        The audit.
    """
    headers = sorted(headers, key=lambda header: str(header.path))
    verdict = next((found for check in _CHECKS if (found := check(headers))), None)
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
            verdict = Verdict(fault.reason, str(fault), fault.offending)
    if verdict is None:
        verdict = _thinned(headers, ordered, spacing)
    if verdict is None and not all(MIN_SPACING_MM <= e <= MAX_SPACING_MM for e in spacing):
        edges = tuple(float(f"{e:.6g}") for e in spacing)
        verdict = Verdict("absurd_spacing", f"the voxel edges are {edges} mm")
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
        notes=_notes(headers) if verdict is None else (),
        is_encapsulated=any(_is_encapsulated(header.transfer_syntax) for header in headers),
    )


def _names_agent(text: str) -> bool:
    """Whether ContrastBolusAgent names one, rather than says that there was none."""
    return text.strip().upper() not in {"", "NO", "NONE", "N", "0", "NO CONTRAST"}


def _is_encapsulated(syntax: str) -> bool:
    """Whether a transfer syntax compresses pixels; one that nobody knows may."""
    uid = UID(syntax)
    return bool(syntax) and (not uid.is_transfer_syntax or uid.is_encapsulated)


def _own_faults(headers: Sequence[DicomHeader]) -> Verdict | None:
    bad = [header for header in headers if header.fault]
    if not bad:
        return None
    fault: Fault = bad[0].fault or Fault("unreadable", "")
    more = f" (and {len(bad) - 1} more files)" if len(bad) > 1 else ""
    return Verdict(
        fault.reason, f"{bad[0].path.name}: {fault.message}{more}", tuple(h.path for h in bad)
    )


def _other_objects(headers: Sequence[DicomHeader]) -> Verdict | None:
    bad = _where(headers, lambda h: h.modality in NO_IMAGES)
    return _no_images(headers, bad)


def _without_pixels(headers: Sequence[DicomHeader]) -> Verdict | None:
    """Images that lost their pixels are damaged; what never had any is no image."""
    if bad := _where(headers, lambda h: not h.has_pixels and _is_image(h)):
        return Verdict("no_pixels", f"{len(bad)} of {len(headers)} images have no pixels", bad)
    return _no_images(headers, _where(headers, lambda h: not h.has_pixels))


def _is_image(header: DicomHeader) -> bool:
    """Whether the SOP class is one of images, such as `MR Image Storage`."""
    return bool(header.sop_class) and "Image Storage" in UID(header.sop_class).name


def _no_images(headers: Sequence[DicomHeader], bad: tuple[Path, ...]) -> Verdict | None:
    if not bad:
        return None
    kind = next(h.modality for h in headers if h.path == bad[0]) or "no modality"
    return Verdict("not_image", f"{len(bad)} of {len(headers)} objects are no images ({kind})", bad)


def _where(headers: Sequence[DicomHeader], test: Callable[[DicomHeader], bool]) -> tuple[Path, ...]:
    return tuple(header.path for header in headers if test(header))


def _kinds(headers: Sequence[DicomHeader]) -> Verdict | None:
    """Refuse images that are no slices of a scalar volume."""
    types = [{part.upper() for part in header.image_type} for header in headers]
    localiser = tuple(
        h.path for h, kind in zip(headers, types, strict=True) if kind & {"LOCALIZER", "SCOUT"}
    )
    if localiser:
        return Verdict(
            "localiser", f"{len(localiser)} of {len(headers)} images are localisers", localiser
        )
    mosaic = tuple(h.path for h, kind in zip(headers, types, strict=True) if "MOSAIC" in kind)
    if mosaic:
        return Verdict(
            "mosaic", "slices are tiled into one mosaic image; export them apart", mosaic
        )
    if bad := _where(headers, lambda h: h.samples != 1 or _is_coloured(h)):
        return Verdict("colour", f"{len(bad)} images are in colour, a volume holds one value", bad)
    if bad := _where(headers, lambda h: any(not part.is_scaled for part in h.slices)):
        return Verdict("bad_scaling", f"{len(bad)} images state no usable rescaling of values", bad)
    if bad := _where(headers, lambda h: h.has_lut):
        return Verdict("modality_lut", "values go through a look-up table, not a slope", bad)
    if bad := _where(headers, lambda h: not is_decodable(h.transfer_syntax)):
        syntax = next(h.transfer_syntax for h in headers if h.path == bad[0])
        return Verdict(
            "transfer_syntax", f"pixels are encoded in {syntax}, which cannot be decoded", bad
        )
    return None


def _is_coloured(header: DicomHeader) -> bool:
    return header.photometric not in {"MONOCHROME1", "MONOCHROME2"}


@cache
def is_decodable(transfer_syntax: str) -> bool:
    """Whether a decoder for the pixels of a transfer syntax is installed."""
    try:
        return bool(get_decoder(UID(transfer_syntax)).is_available)
    except NotImplementedError:
        return False


def _geometry(headers: Sequence[DicomHeader]) -> Verdict | None:
    """Refuse slices that do not say where they lie."""
    if bad := _where(headers, lambda h: len(h.slices) > 1 and any(map(_unplaced, h.slices))):
        return Verdict("no_frame_positions", "frames of a multi-frame file have no positions", bad)
    bad = _where(headers, lambda h: not h.slices or any(map(_unplaced, h.slices)))
    if bad and all(_is_capture(h) for h in headers if h.path in bad):
        return Verdict("secondary_capture", "screen captures have no place in the patient", bad)
    if bad:
        return Verdict(
            "missing_geometry",
            f"{len(bad)} images lack position, orientation or pixel spacing",
            bad,
        )
    return None


def _rotations(headers: Sequence[DicomHeader]) -> Verdict | None:
    """Refuse direction cosines that span no rectangle."""
    if bad := _where(headers, lambda h: any(not _is_rotation(s.orientation) for s in h.slices)):
        return Verdict("bad_orientation", "direction cosines are not perpendicular units", bad)
    return None


def _is_capture(header: DicomHeader) -> bool:
    """Secondary capture, or one of its multi-frame classes."""
    return f"{header.sop_class}.".startswith(SECONDARY_CAPTURE + ".")


def _unplaced(part: Slice) -> bool:
    return part.position is None or part.orientation is None or part.spacing is None


def _is_rotation(orientation: tuple[float, ...] | None) -> bool:
    row, column = np.asarray(orientation).reshape(2, 3)
    return bool(
        abs(row @ row - 1) < 5e-3 and abs(column @ column - 1) < 5e-3 and abs(row @ column) < 2e-3
    )


def _one_of_each(headers: Sequence[DicomHeader]) -> Verdict | None:
    """Refuse what must be the same in all files of a series and is not."""
    for reason, what, value in (
        ("mixed_patient", "patients", lambda h: h.patient_key),
        ("mixed_study", "studies", lambda h: h.study_uid),
        ("mixed_modality", "modalities", lambda h: h.modality),
        ("mixed_size", "image sizes", lambda h: (h.rows, h.columns)),
        ("mixed_frame_of_reference", "frames of reference", lambda h: h.frame_of_reference),
        ("mixed_photometric", "photometric interpretations", lambda h: h.photometric),
    ):
        counted = Counter(value(header) for header in headers)
        if len(counted) > 1:
            usual = counted.most_common(1)[0][0]
            odd = tuple(h.path for h in headers if value(h) != usual)
            return Verdict(reason, f"images of {len(counted)} {what} in one series", odd)
    return None


def _one_grid(headers: Sequence[DicomHeader]) -> Verdict | None:
    """Refuse slices of more than one orientation or pixel spacing."""
    parts = [(header.path, part) for header in headers for part in header.slices]
    for reason, what, values, tolerance in (
        (
            "mixed_orientation",
            "orientations",
            [part.orientation for _, part in parts],
            ORIENTATION_TOLERANCE,
        ),
        ("mixed_spacing", "pixel spacings", [part.spacing for _, part in parts],
         SPACING_TOLERANCE_MM),
    ):  # fmt: skip
        array = np.asarray(values, dtype=np.float64)
        usual = np.median(array, axis=0)
        nearest = array[np.argmin(np.abs(array - usual).max(axis=1))]
        odd = np.abs(array - nearest).max(axis=1) > tolerance
        if odd.any():
            bad = tuple(
                dict.fromkeys(path for (path, _), is_odd in zip(parts, odd, strict=True) if is_odd)
            )
            return Verdict(reason, f"slices of several {what} in one series", bad)
    return None


def _thinned(
    headers: Sequence[DicomHeader],
    ordered: Sequence[tuple[Path, Slice]],
    spacing: tuple[float, ...],
) -> Verdict | None:
    """Refuse an even stack of every second (third, ...) slice of what was acquired.

    Its distance alone looks sound. It is a multiple of the stated one, and the instance numbers
    leave as many out.
    """
    stated = ordered[0][1].step if len(ordered) > 1 else None
    number_of = {header.path: header.instance_number for header in headers}
    numbers = [number_of[path] for path, _ in ordered]
    if not stated or len(headers) != len(ordered) or None in numbers:
        return None
    times = round(spacing[2] / abs(stated))
    leaps = np.abs(np.diff(np.asarray(numbers, dtype=np.int64)))
    if times < 2 or abs(spacing[2] / abs(stated) - times) > STEP_TOLERANCE * times:
        return None
    if (leaps < times).any():
        return None
    missing = (times - 1) * (len(ordered) - 1)
    return Verdict(
        "missing_slice",
        f"slices lie {spacing[2]:.2f} mm apart, the header states {abs(stated):.2f} mm, and the "
        f"instance numbers leap: {missing} {'slices are' if missing > 1 else 'slice is'} missing",
    )


def _copies(headers: Sequence[DicomHeader]) -> Verdict | None:
    """Refuse images that are stored twice."""
    counted = Counter(header.sop_uid for header in headers if header.sop_uid)
    bad = _where(headers, lambda h: counted[h.sop_uid] > 1)
    if bad:
        return Verdict("duplicate_slice", f"{len(bad)} files hold the same images twice", bad)
    return None


_CHECKS = (
    _other_objects, _own_faults, _without_pixels, _copies, _kinds, _one_of_each, _geometry,
    _one_grid, _rotations,
)  # fmt: skip


def _notes(headers: Sequence[DicomHeader]) -> tuple[str, ...]:
    notes = []
    first = headers[0]
    if _is_capture(first):
        notes.append("stored as secondary capture, though with geometry")
    if any(header.photometric == "MONOCHROME1" for header in headers):
        notes.append("MONOCHROME1: stored values are kept, low is bright")
    if any(header.is_lossy for header in headers):
        notes.append("compressed with loss: values are near those of the scanner")
    made = max((header.images_in_acquisition or 0 for header in headers), default=0)
    if len(headers) < made:
        notes.append(f"the scanner made {made} images, {len(headers)} are here")
    given = sorted(h.instance_number for h in headers if h.instance_number is not None)
    if len(set(given)) > 1 and given[-1] - given[0] + 1 > len(given):
        notes.append(f"instance numbers run from {given[0]} to {given[-1]} for {len(given)} files")
    return tuple(notes)
