"""Read the voxels of an audited DICOM series."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_partial
from pydicom.pixels import get_decoder
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from segmed.errors import GeometryError, ImageError
from segmed.io.dicom.audit import SeriesAudit
from segmed.io.dicom.codestream import (
    JPEG_FAMILY,
    check_codestream,
    check_run_lengths,
    check_sign,
)
from segmed.io.dicom.frames import Slice
from segmed.io.dicom.header import tolerant_pydicom
from segmed.io.dicom.scan import scan
from segmed.io.limits import ReadLimits, check_finite, check_size, out_of_memory
from segmed.io.source import Loaded, Source

PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Float, double and integer pixel data."""

GEOMETRY_REASONS = frozenset({
    "missing_slice", "uneven_slices", "tilt", "shifted_slices", "mixed_orientation", "mixed_size",
    "mixed_spacing", "missing_geometry", "no_frame_positions", "bad_orientation", "absurd_spacing",
})  # fmt: skip
"""Refusals that are about the grid."""


def only_series(path: Path) -> SeriesAudit:
    """The one image series of a folder or file.

    Segmentations and other objects that are not images may be beside it.

    Raises:
        ImageError: There is none, or more than one (`several_series`).
    """
    audits = scan(path)
    images = [audit for audit in audits if audit.reason != "not_image"]
    if len(images) == 1:
        return images[0]
    if not images and len(audits) == 1:
        return audits[0]
    if not images:
        raise ImageError(f"{path.name}: no DICOM images found", reason="not_image", paths=[path])
    bad = sum(not audit.usable for audit in images)
    raise ImageError(
        f"{path.name}: {len(images)} series ({bad} of them refused); give the folder of one series",
        reason="several_series",
        paths=[path],
    )


def load_series(
    series: SeriesAudit | Path | str, limits: ReadLimits, *, exact: bool = False
) -> Loaded:
    """Read a series as an array.

    Args:
        series: An audit, or the folder or file of one series.
        limits: Bounds on its size.
        exact: int32 where the values are whole and no scale is stored, else float64.

    Returns:
        `[1, columns, rows, slices]`, rescaled slice by slice; MONOCHROME1 keeps its stored values.

    Raises:
        ImageError: The audit refuses the series, or a slice cannot be decoded (`undecodable`).
    """
    audit = series if isinstance(series, SeriesAudit) else only_series(Path(series))
    require_usable(audit)
    if audit.is_plane:
        from segmed.io.dicom.plane import load_plane  # noqa: PLC0415 - it reads by this module

        return load_plane(audit, limits)
    check_size(audit.shape, limits, audit.files[0])
    volume = np.empty(audit.shape, dtype=np.float64 if exact else np.float32, order="F")
    opened: tuple[Path, Dataset] | None = None
    with tolerant_pydicom():
        for index, (path, part) in enumerate(audit.slices):
            if opened is None or opened[0] != path:
                with decoding(path):
                    opened = (path, _dataset(path))
            volume[:, :, index] = _frame(opened[1], part, path, audit.shape[:2]).T
    check_finite(volume, audit.files[0])
    if exact and all((part.slope, part.intercept) == (1, 0) for _, part in audit.slices):
        volume = _as_whole(volume)
    source = source_of(audit, "dicom")
    if audit.affine_ras is None:  # a usable audit has one
        raise GeometryError("the audit has no affine; scan the series again", reason="stale_audit")
    return Loaded(np.ascontiguousarray(volume)[None], audit.affine_ras, source)


def source_of(audit: SeriesAudit, format_name: str) -> Source:
    """Source of an image that was read from the files of an audit."""
    return Source(
        format=format_name,
        paths=audit.files,
        series_uid=audit.series_uid,
        study_uid=audit.study_uid,
        modality=audit.modality,
        body_part=audit.body_part,
        notes=audit.notes,
        patient_key=audit.patient_key,
        frame_of_reference=audit.frame_of_reference,
    )


def _dataset(path: Path) -> Dataset:
    """The elements of a file up to its pixels: what follows them is not part of the image."""
    with path.open("rb") as stream:
        return read_partial(stream, stop_when=_behind_pixels(), force=True)


def _behind_pixels() -> Callable[[int, str | None, int], bool]:
    """Give a test that is true for the first element behind the pixel data, whatever its tag."""
    has_met = False

    def is_behind(tag: int, _vr: str | None, _length: int) -> bool:
        nonlocal has_met
        if has_met:
            return True
        has_met = int(tag) in PIXEL_TAGS
        return False

    return is_behind


def _as_whole(volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The volume as int32 where nothing is lost by that."""
    limit = np.iinfo(np.int32).max
    if volume.min() < -limit or volume.max() > limit:
        return volume
    whole = volume.astype(np.int32)
    return whole if np.array_equal(whole, volume) else volume


def require_usable(audit: SeriesAudit) -> None:
    """Raise the refusal of an audit.

    Raises:
        ImageError: The series is not usable; a GeometryError where its grid is at fault.
    """
    if audit.usable:
        return
    kind = GeometryError if audit.reason in GEOMETRY_REASONS else ImageError
    raise kind(
        f"{audit.name} refused: {audit.message}",
        reason=audit.reason or "unreadable",
        paths=audit.offending or audit.files,
    )


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """The boundary around pydicom and its decoders, which raise anything for a damaged file.

    Raises:
        ImageError: `out_of_memory`, or `undecodable`. Its text names the kind of error only: the
            error's own text may quote the file.
    """
    try:
        yield
    except (ImageError, KeyboardInterrupt, SystemExit):
        raise
    except MemoryError as error:
        raise out_of_memory(path) from error
    except BaseException as error:  # panics of the RLE decoder are no `Exception`s
        if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":
            raise
        raise ImageError(
            f"{path.name}: its pixels cannot be decoded ({type(error).__name__}): they are damaged "
            "or encoded in an unusual way; fetch it again or store it uncompressed",
            reason="undecodable",
            paths=[path],
        ) from error


def _frame(
    dataset: Dataset, part: Slice, path: Path, shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """One frame in real values, `[rows, columns]`."""
    syntax = dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
    with decoding(path):
        stream = b""
        if syntax == RLELossless or syntax.startswith(JPEG_FAMILY):
            frames = int(dataset.get("NumberOfFrames") or 1)
            stream = get_frame(dataset.PixelData, part.frame, number_of_frames=frames)
            check = check_run_lengths if syntax == RLELossless else check_codestream
            check(stream, shape[1], shape[0], path)
        stored, _ = get_decoder(syntax).as_array(dataset, index=part.frame, raw=True)
        check_sign(stream, stored, path)
        if not syntax.is_compressed or syntax.is_deflated:
            stored = meaningful_bits(stored, dataset)
    if stored.shape != (shape[1], shape[0]):
        raise ImageError(
            f"{path.name}: the pixels have the shape {stored.shape}, the header states "
            f"{(shape[1], shape[0])}",
            reason="undecodable",
            paths=[path],
        )
    values: npt.NDArray[np.float64] = stored.astype(np.float64) * part.slope + part.intercept
    return values


def meaningful_bits(stored: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[Any]:
    """Stored values without the content of the unused bits (old overlays, dirt).

    Some versions of pydicom clear these bits themselves; the result must not depend on that.

    Source:
        DICOM PS3.5 section 8.1.1: bits outside Bits Stored are not part of the sample.
    """
    if stored.dtype.kind not in "iu":
        return stored
    allocated = stored.dtype.itemsize * 8
    used = int(dataset.get("BitsStored") or allocated)
    high = int(dataset.get("HighBit", used - 1))
    if used >= allocated or not used - 1 <= high < allocated:
        return stored
    up = allocated - 1 - high
    cleaned: npt.NDArray[Any] = np.right_shift(np.left_shift(stored, up), allocated - used)
    return cleaned
