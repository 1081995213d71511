"""Single-frame images for models of planes: CR, DX, MG, OP, ultrasound stills, screen captures.

Rules. Each file is an image of its own, whatever series it is in. Grey gives one channel; RGB, YBR
and PALETTE COLOR give three, converted to RGB of 8 bits. MONOCHROME1 is inverted within its stored
bits, so that high is bright, as in pictures. A stated slope and intercept are applied. Rows come
first, as in pictures, and the affine counts pixels: models of planes were trained so. The pixel
spacing is said in a note with its origin, or its absence; no millimetres are claimed.
Refused: several frames (`multi_frame`), modality look-up tables, unknown photometric
interpretations and undecodable pixels, by the reasons of `checks`.

Source:
    DICOM PS3.3 C.7.6.3.1.2 (photometric interpretation), 10.7 (pixel spacing and calibration),
    C.8.11.7 (magnification of projections), C.8.5.5 (regions of ultrasound).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.uid import ImplicitVRLittleEndian

from segmed.errors import ImageError
from segmed.formats import PLANE_FORMAT
from segmed.io.bytestream import refusal
from segmed.io.dicom.audit import BURNED_IN, SeriesAudit
from segmed.io.dicom.checks import COLOURED, MONOCHROME, is_capture, is_decodable, is_projection
from segmed.io.dicom.elements import number, numbers
from segmed.io.dicom.header import DicomHeader, read_header, tolerant_pydicom
from segmed.io.dicom.read import decoding, meaningful_bits, source_of
from segmed.io.limits import ReadLimits, check_finite, check_size
from segmed.io.source import Loaded

PLANE_REASONS = frozenset({
    "projection", "secondary_capture", "colour", "missing_geometry", "mixed_size",
    "mixed_photometric", "no_frame_positions",
})  # fmt: skip
"""Refusals of a series as a volume that say nothing against its images as planes."""

PLANE_MODALITIES = frozenset({"US", "OP", "XC", "GM", "ES", "DMS", "OT", "SC"})
"""Modalities of pictures besides the projections. Slices of a scanner that lack their geometry, as
of CT and MR, are damaged volumes and stay refused."""

CENTIMETRES, TWO_DIMENSIONAL = 3, 1
"""PhysicalUnitsXDirection and RegionSpatialFormat of ultrasound regions."""


@tolerant_pydicom()
def planes_of(audits: Iterable[SeriesAudit]) -> list[SeriesAudit]:
    """Series for a model of planes: those that are no volumes fall apart into their images.

    Args:
        audits: Series as they were audited.

    Returns:
        Volumes and other refusals as they are; else one audit for each file, usable or refused.
    """
    found = []
    for audit in audits:
        headers = [] if audit.usable or audit.reason not in PLANE_REASONS else _headers_of(audit)
        if headers and all(map(_is_picture, headers)):
            found += [_plane(audit, header) for header in headers]
        else:
            found.append(audit)
    return found


def _headers_of(audit: SeriesAudit) -> list[DicomHeader]:
    """Headers of all files of a series; none if one of them is gone."""
    headers = [read_header(path) for path in audit.files]
    return [] if None in headers else [header for header in headers if header is not None]


def _is_picture(header: DicomHeader) -> bool:
    return is_projection(header) or is_capture(header) or header.modality in PLANE_MODALITIES


def _plane(audit: SeriesAudit, header: DicomHeader) -> SeriesAudit:
    path = header.path
    one = replace(audit, files=(path,), offending=(), copies=())
    fault = _fault(header)
    if fault is not None:
        return replace(one, reason=fault[0], message=fault[1], offending=(path,))
    return replace(
        one,
        usable=True,
        reason=None,
        message="",
        modality=header.modality,
        shape=(header.rows, header.columns),
        spacing_mm=(1.0, 1.0),
        affine_ras=np.eye(4),
        slices=((path, header.slices[0]),),
        is_plane=True,
        notes=_notes(path, header),
    )


def _fault(header: DicomHeader) -> tuple[str, str] | None:
    """Reason and message of a file that is no plane."""
    if header.fault is not None:
        return header.fault.reason, header.fault.message
    if not header.has_pixels:
        return "no_pixels", "the image has no pixels"
    if len(header.slices) != 1:
        return "multi_frame", f"{len(header.slices)} frames; export them as images of one frame"
    if header.photometric not in MONOCHROME | COLOURED:
        return "unknown_photometric", "it does not state a known PhotometricInterpretation"
    if header.has_lut:
        return "modality_lut", "values go through a look-up table, not a slope"
    if not header.slices[0].is_scaled:
        return "bad_scaling", "it states no usable rescaling of values"
    if not is_decodable(header.transfer_syntax):
        syntax = header.transfer_syntax
        return "transfer_syntax", f"pixels are encoded in {syntax}, which cannot be decoded"
    return None


def _notes(path: Path, header: DicomHeader) -> tuple[str, ...]:
    dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    notes = [spacing_note(dataset)]
    if header.photometric == "MONOCHROME1":
        notes.append("MONOCHROME1: inverted, so that high is bright")
    if header.has_text:
        notes.append(BURNED_IN)
    if header.is_lossy:
        notes.append("compressed with loss: values are near those of the device")
    return tuple(notes)


def spacing_note(dataset: Dataset) -> str:
    """The pixel spacing of a plane with its origin, or its absence, in one line.

    Args:
        dataset: Its header.
    """
    stated = numbers(dataset, "PixelSpacing", 2)
    detector = numbers(dataset, "ImagerPixelSpacing", 2)
    if stated is not None:
        kind = str(dataset.get("PixelSpacingCalibrationType") or "")
        same = detector is not None and np.allclose(stated, detector)
        origin = f"calibrated by {kind}" if kind else "as PixelSpacing states it"
        if same and not kind:
            origin = "at the detector: objects are shown magnified"
        return f"pixel spacing {_shown(stated)} mm, {origin}"
    if detector is not None:
        factor = number(dataset, "EstimatedRadiographicMagnificationFactor")
        if factor is not None and factor >= 1:
            real = tuple(edge / factor for edge in detector)
            return (
                f"pixel spacing {_shown(real)} mm in the object: {_shown(detector)} mm at the "
                f"detector by a magnification of {factor:g}"
            )
        return (
            f"pixel spacing {_shown(detector)} mm at the detector; objects are magnified by a "
            "factor that is not stated"
        )
    if (regions := _region_spacing(dataset)) is not None:
        return f"pixel spacing {_shown(regions)} mm, of its ultrasound regions"
    if (nominal := numbers(dataset, "NominalScannedPixelSpacing", 2)) is not None:
        return f"pixel spacing {_shown(nominal)} mm of the scanner, not of the patient"
    return "no pixel spacing stated: distances and areas are in pixels"


def _region_spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Rows and columns in mm of ultrasound regions that agree; None where there are none."""
    found = []
    for region in dataset.get("SequenceOfUltrasoundRegions") or ():
        units = [number(region, f"PhysicalUnits{axis}Direction") for axis in "YX"]
        deltas = [number(region, f"PhysicalDelta{axis}") for axis in "YX"]
        is_flat = number(region, "RegionSpatialFormat") == TWO_DIMENSIONAL
        if is_flat and units == [CENTIMETRES] * 2 and all(deltas):
            found.append(tuple(abs(float(delta or 0.0)) * 10 for delta in deltas))
    if not found or not np.allclose(found, found[0]):
        return None
    return found[0][0], found[0][1]


def _shown(spacing: Sequence[float]) -> str:
    return " x ".join(f"{edge:.4g}" for edge in spacing)


def load_plane(audit: SeriesAudit, limits: ReadLimits) -> Loaded:
    """Read one plane.

    Args:
        audit: A usable audit from `planes_of`.
        limits: Bounds on its size.

    Returns:
        `[C, rows, columns]` float32, C = 1 or 3.

    Raises:
        ImageError: It is too large, or cannot be decoded (`undecodable`).
    """
    (path, part) = audit.slices[0]
    check_size(audit.shape, limits, path)
    with tolerant_pydicom(), decoding(path):
        dataset = pydicom.dcmread(path, force=True)
        values = _values(dataset, path)
    if values.shape[1:] != audit.shape:
        raise ImageError(
            f"{path.name}: the pixels have the shape {values.shape[1:]}, the header states "
            f"{audit.shape}",
            reason="undecodable",
            paths=[path],
        )
    if len(values) == 1:
        values = values * part.slope + part.intercept
    image = np.ascontiguousarray(values, dtype=np.float32)
    check_finite(image, path)
    return Loaded(image, np.eye(4), source_of(audit, PLANE_FORMAT))


def _values(dataset: Dataset, path: Path) -> npt.NDArray[Any]:
    """Stored values as grey or RGB, `[C, rows, columns]`."""
    syntax = dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
    photometric = str(dataset.get("PhotometricInterpretation", "")).strip()
    stored, _ = get_decoder(syntax).as_array(dataset, index=0)  # YBR becomes RGB
    if photometric == "PALETTE COLOR":
        colours = np.asarray(apply_color_lut(stored, dataset))[..., :3]
        colours = colours >> 8 if colours.dtype == np.uint16 else colours
        return np.asarray(np.moveaxis(colours.astype(np.float64), 2, 0))
    if stored.ndim == 3:
        if stored.dtype != np.uint8:
            raise refusal(path, "unsupported_pixels", "colour of more than 8 bits")
        return np.asarray(np.moveaxis(stored.astype(np.float64), 2, 0))
    if not syntax.is_compressed or syntax.is_deflated:
        stored = meaningful_bits(stored, dataset)
    values = stored.astype(np.float64)
    if photometric == "MONOCHROME1":
        bits = int(dataset.BitsStored)
        is_signed = int(dataset.get("PixelRepresentation") or 0) == 1
        values = (-1 if is_signed else 2**bits - 1) - values
    return np.asarray(values[None])
