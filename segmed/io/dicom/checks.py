"""Checks of the images of one series before they are stacked: each gives a refusal or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from segmed.formats import NEVER_IMAGES
from segmed.io.dicom.frames import Slice
from segmed.io.dicom.header import DicomHeader, HeaderFault
from segmed.io.dicom.traits import several_volumes

MONOCHROME = frozenset({"MONOCHROME1", "MONOCHROME2"})
COLOURED = frozenset({
    "RGB", "ARGB", "CMYK", "HSV", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420",
    "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT", "XYB",
})  # fmt: skip
"""Values of PhotometricInterpretation that mean colour."""

PROJECTIONS = frozenset({"CR", "DX", "MG", "XA", "RF", "PX", "IO", "RTIMAGE"})
PROJECTION_CLASSES = ("Computed Radiography Image", "Digital X-Ray Image", "Digital Mammography",
                      "Digital Intra-Oral", "X-Ray Angiographic Image", "XRF Image",
                      "X-Ray Radiofluoroscopic", "RT Image")  # fmt: skip
"""Projections by Modality, and by the name of their SOP class."""

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SPACING_TOLERANCE_MM = 1e-3
ORIENTATION_TOLERANCE = 1e-4
"""Largest difference of direction cosines within one series; real series differ in the last digit
that their text contains."""


@dataclass(frozen=True)
class SeriesRefusal:
    """A refusal: its code, its one-line message and the files at fault."""

    reason: str
    message: str
    offending: tuple[Path, ...] = ()


def _own_faults(headers: Sequence[DicomHeader]) -> SeriesRefusal | None:
    bad = [header for header in headers if header.fault]
    if not bad:
        return None
    fault: HeaderFault = bad[0].fault or HeaderFault("unreadable", "")
    more = f" (and {len(bad) - 1} more files)" if len(bad) > 1 else ""
    return SeriesRefusal(
        fault.reason, f"{bad[0].path.name}: {fault.message}{more}", tuple(h.path for h in bad)
    )


def _other_objects(headers: Sequence[DicomHeader]) -> SeriesRefusal | None:
    bad = _where(headers, lambda h: h.modality in NEVER_IMAGES)
    return _no_images(headers, bad)


def _without_pixels(headers: Sequence[DicomHeader]) -> SeriesRefusal | None:
    """Images that lost their pixels are damaged; a file that never had any is not an image."""
    if bad := _where(headers, lambda h: not h.has_pixels and _is_image(h)):
        return SeriesRefusal(
            "no_pixels", f"{len(bad)} of {len(headers)} images have no pixels", bad
        )
    return _no_images(headers, _where(headers, lambda h: not h.has_pixels))


def _is_image(header: DicomHeader) -> bool:
    """Return whether the SOP class is one of images, such as `MR Image Storage`."""
    return bool(header.sop_class) and "Image Storage" in UID(header.sop_class).name


def is_object(header: DicomHeader) -> bool:
    """Return whether a valid file has no image: a report, a presentation state, a segmentation."""
    if header.modality in NEVER_IMAGES:
        return True
    return not (header.has_pixels or header.fault or _is_image(header))


def _no_images(headers: Sequence[DicomHeader], bad: tuple[Path, ...]) -> SeriesRefusal | None:
    if not bad:
        return None
    kind = next(h.modality for h in headers if h.path == bad[0]) or "no modality"
    return SeriesRefusal(
        "not_image", f"{len(bad)} of {len(headers)} objects are not images ({kind})", bad
    )


def _where(headers: Sequence[DicomHeader], test: Callable[[DicomHeader], bool]) -> tuple[Path, ...]:
    return tuple(header.path for header in headers if test(header))


def _kinds(headers: Sequence[DicomHeader]) -> SeriesRefusal | None:
    """Refuse images that are not slices of a scalar volume."""
    types = [{part.upper() for part in header.image_type} for header in headers]
    localiser = tuple(
        h.path for h, kind in zip(headers, types, strict=True) if kind & {"LOCALIZER", "SCOUT"}
    )
    if localiser:
        return SeriesRefusal(
            "localiser", f"{len(localiser)} of {len(headers)} images are localisers", localiser
        )
    mosaic = tuple(h.path for h, kind in zip(headers, types, strict=True) if "MOSAIC" in kind)
    if mosaic:
        return SeriesRefusal(
            "mosaic", "slices are tiled into one mosaic image; export them apart", mosaic
        )
    if bad := _where(headers, lambda h: h.samples != 1 or _is_coloured(h)):
        return SeriesRefusal(
            "colour", f"{len(bad)} images are in colour; a volume has one value a voxel", bad
        )
    if bad := _where(headers, lambda h: h.photometric not in MONOCHROME):
        return SeriesRefusal(
            "unknown_photometric",
            f"{len(bad)} images do not state a known PhotometricInterpretation",
            bad,
        )
    if bad := _where(headers, lambda h: any(not part.is_scaled for part in h.slices)):
        return SeriesRefusal(
            "bad_scaling", f"{len(bad)} images state no usable rescaling of values", bad
        )
    if bad := _where(headers, lambda h: h.has_lut):
        return SeriesRefusal("modality_lut", "values go through a look-up table, not a slope", bad)
    if bad := _where(headers, lambda h: not is_decodable(h.transfer_syntax)):
        syntax = next(h.transfer_syntax for h in headers if h.path == bad[0])
        return SeriesRefusal(
            "transfer_syntax", f"pixels are encoded in {syntax}, which cannot be decoded", bad
        )
    return None


def _is_coloured(header: DicomHeader) -> bool:
    return header.photometric in COLOURED


def _rescaling(headers: Sequence[DicomHeader]) -> SeriesRefusal | None:
    """Refuse a series whose images do not agree on being rescaled, and to which unit."""
    counted = Counter(part.rescale for header in headers for part in header.slices)
    if len(counted) < 2:
        return None
    usual = counted.most_common(1)[0][0]
    odd = _where(headers, lambda h: any(part.rescale != usual for part in h.slices))
    if len({stated[:2] for stated in counted}) > 1:
        message = f"rescaling is stated in some images and not in others ({len(odd)} differ)"
    else:
        units = sorted(unit or "none" for *_, unit in counted)
        message = f"images rescaled to several units ({', '.join(units[:4])})"
    return SeriesRefusal("mixed_rescale", message, odd)


def _volumes(headers: Sequence[DicomHeader]) -> SeriesRefusal | None:
    """Refuse several volumes in one series, also where each position has one image only."""
    parts = [(header.path, part) for header in headers for part in header.slices]
    named = several_volumes([part.traits for _, part in parts])
    if named is None:
        return None
    usual = Counter(part.traits for _, part in parts).most_common(1)[0][0]
    odd = tuple(dict.fromkeys(path for path, part in parts if part.traits != usual))
    return SeriesRefusal(named[0], f"several volumes in one series: {named[1]}", odd)


@cache
def is_decodable(transfer_syntax: str) -> bool:
    """Return whether a decoder for the pixels of a transfer syntax is installed."""
    try:
        return bool(get_decoder(UID(transfer_syntax)).is_available)
    except NotImplementedError:
        return False


def _geometry(headers: Sequence[DicomHeader]) -> SeriesRefusal | None:
    """Refuse slices that do not state their positions."""
    if bad := _where(headers, lambda h: len(h.slices) > 1 and any(map(_unplaced, h.slices))):
        return SeriesRefusal(
            "no_frame_positions", "frames of a multi-frame file have no positions", bad
        )
    bad = _where(headers, lambda h: not h.slices or any(map(_unplaced, h.slices)))
    if bad and all(is_projection(h) for h in headers if h.path in bad):
        kind = next(h.modality for h in headers if h.path == bad[0]) or "X-ray"
        return SeriesRefusal(
            "projection", f"{len(bad)} images are projections ({kind}), no slices of a volume", bad
        )
    if bad and all(is_capture(h) for h in headers if h.path in bad):
        return SeriesRefusal(
            "secondary_capture", "screen captures have no place in the patient", bad
        )
    if bad:
        return SeriesRefusal(
            "missing_geometry",
            f"{len(bad)} images lack position, orientation or pixel spacing",
            bad,
        )
    return None


def _rotations(headers: Sequence[DicomHeader]) -> SeriesRefusal | None:
    """Refuse direction cosines that span no rectangle."""
    if bad := _where(headers, lambda h: any(not _is_rotation(s.orientation) for s in h.slices)):
        return SeriesRefusal(
            "bad_orientation", "direction cosines are not perpendicular units", bad
        )
    return None


def is_projection(header: DicomHeader) -> bool:
    """Radiograph, mammogram, angiogram and the like: one image, and no plane in the patient."""
    name = UID(header.sop_class).name if header.sop_class else ""
    return header.modality in PROJECTIONS or any(word in name for word in PROJECTION_CLASSES)


def is_capture(header: DicomHeader) -> bool:
    """Secondary capture, or one of its multi-frame classes."""
    return f"{header.sop_class}.".startswith(SECONDARY_CAPTURE + ".")


def _unplaced(part: Slice) -> bool:
    return part.position is None or part.orientation is None or part.spacing is None


def _is_rotation(orientation: tuple[float, ...] | None) -> bool:
    row, column = np.asarray(orientation).reshape(2, 3)
    return bool(
        abs(row @ row - 1) < 5e-3 and abs(column @ column - 1) < 5e-3 and abs(row @ column) < 2e-3
    )


def _one_of_each(headers: Sequence[DicomHeader]) -> SeriesRefusal | None:
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
            return SeriesRefusal(reason, f"images of {len(counted)} {what} in one series", odd)
    return None


def _persons(headers: Sequence[DicomHeader]) -> SeriesRefusal | None:
    """Refuse one PatientID of people with different names or dates of birth."""
    for index, what in enumerate(("names", "dates of birth")):
        counted = Counter(key for h in headers if (key := h.person_keys[index]))
        if len(counted) > 1:
            usual = counted.most_common(1)[0][0]
            odd = tuple(h.path for h in headers if h.person_keys[index] not in {"", usual})
            message = f"one PatientID with {len(counted)} {what} of patients in one series"
            return SeriesRefusal("mixed_patient", message, odd)
    return None


def _one_grid(headers: Sequence[DicomHeader]) -> SeriesRefusal | None:
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
            return SeriesRefusal(reason, f"slices of several {what} in one series", bad)
    return None


def _copies(headers: Sequence[DicomHeader]) -> SeriesRefusal | None:
    """Refuse images that are stored twice."""
    counted = Counter(header.sop_uid for header in headers if header.sop_uid)
    bad = _where(headers, lambda h: counted[h.sop_uid] > 1)
    if bad:
        return SeriesRefusal(
            "duplicate_slice", f"{len(bad)} files are different versions of the same images", bad
        )
    return None


CHECKS = (
    _other_objects, _own_faults, _without_pixels, _copies, _kinds, _one_of_each, _persons,
    _geometry, _one_grid, _rotations, _volumes, _rescaling,
)  # fmt: skip
