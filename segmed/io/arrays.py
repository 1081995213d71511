"""Choose the reader by a file's content. Knows neither torch nor MONAI, so it starts quickly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segmed.errors import ImageError
from segmed.formats import KNOWN_FORMATS, is_named
from segmed.geometry import Grid
from segmed.io.bytestream import truncated
from segmed.io.dicom.read import load_series, only_series
from segmed.io.dicom.seg_read import load_seg
from segmed.io.foreign import foreign_format
from segmed.io.head import FileHead, sniff
from segmed.io.limits import ReadLimits, out_of_memory
from segmed.io.metaimage import read_metaimage
from segmed.io.nifti import read_nifti
from segmed.io.nrrd import read_nrrd
from segmed.io.raster import read_raster
from segmed.io.source import Loaded
from segmed.io.stack import is_stack, read_stack
from segmed.structures import LabelClass


def load(
    path: Path | str | FileHead,
    limits: ReadLimits,
    *,
    exact: bool = False,
    grid: Grid | None = None,
    labels: Sequence[LabelClass] = (),
    num_channels: int = 1,
) -> Loaded:
    """Read one image as an array.

    Args:
        path: A file of any known format, also as it was sniffed, or a folder with one DICOM
            series.
        limits: Bounds on its size and spacing.
        exact: Keep stored integers (or float64) instead of float32, as labels need it.
        grid: Where to put a DICOM segmentation.
        labels: Structures to match the segments of a DICOM segmentation to; see `load_seg`.
        num_channels: Volumes of a 4D NIfTI file that are taken for channels.

    Returns:
        The image.

    Raises:
        ImageError: The file is refused; `reason` says why.
    """
    head = path if isinstance(path, FileHead) else None
    path = Path(path.path if isinstance(path, FileHead) else path)
    try:
        head = sniff(head or path) if path.is_file() else None
        if exact and (seg := _segmentation(path, head)):
            return load_seg(seg, grid=grid, limits=limits, labels=labels)
        return _load(path, head, limits, exact=exact, num_channels=num_channels)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ImageError(
            f"{path.name}: the system cannot read it ({reason}); see to the disk or its rights",
            reason="unreadable",
            paths=[path],
        ) from error
    except MemoryError as error:
        raise out_of_memory(path) from error


def _load(
    path: Path, head: FileHead | None, limits: ReadLimits, *, exact: bool, num_channels: int
) -> Loaded:
    """As `load`; what the system says against reading comes out as it is."""
    if head is None:
        if is_stack(path):
            return read_stack(path, limits, exact=exact)
        if path.is_dir():
            return load_series(only_series(path), limits, exact=exact)
        message = f"{path.name}: no such file or folder"
        raise ImageError(message, reason="missing_file", paths=[path])
    head.require_sound()
    if head.format == "nifti" or is_half_pair(path):
        return read_nifti(path, limits, exact=exact, num_channels=num_channels, head=head)
    if head.format == "dicom":
        return load_series(only_series(path), limits, exact=exact)
    if head.format == "nrrd":
        return read_nrrd(path, limits, exact=exact)
    if head.format == "metaimage":
        return read_metaimage(path, limits, exact=exact)
    if head.format is not None:
        return read_raster(path, head.format, limits, exact=exact)
    raise unknown_format(path, head.start)


def _segmentation(path: Path, head: FileHead | None) -> Path | None:
    """The DICOM segmentation object at a place, if that is what lies there."""
    if head is None and (is_stack(path) or not path.is_dir()):
        return None
    if head is not None and head.format != "dicom":
        return None
    audit = only_series(path)
    is_seg = audit.reason == "not_image" and audit.modality == "SEG" and len(audit.files) == 1
    return audit.files[0] if is_seg else None


def is_half_pair(path: Path) -> bool:
    """Return whether a file without a magic may be the voxels of a NIfTI pair."""
    stem = path.with_suffix("") if path.suffix == ".gz" else path
    zipped = ".gz" if path.suffix == ".gz" else ""
    return stem.suffix == ".img" and stem.with_suffix(".hdr" + zipped).is_file()


def unknown_format(path: Path, start: bytes) -> ImageError:
    """The error for content that is no known image."""
    if is_named(path, "nifti") and len(start) < 348:
        return truncated(path, f"the file ends inside its header ({len(start)} of 348 bytes)")
    if foreign := foreign_format(path.name, start):
        return ImageError(
            f"{path.name}: {foreign[0]} is not read: {foreign[1]}",
            reason="unsupported_format",
            paths=[path],
        )
    return ImageError(
        f"{path.name}: no known image format; known are {KNOWN_FORMATS}",
        reason="unknown_format",
        paths=[path],
    )
