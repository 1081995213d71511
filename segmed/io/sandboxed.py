"""Read files that nobody vouches for, without paying for a process where none is needed.

Compressed DICOM pixels and raster images go through compiled decoders, which a damaged or hostile
file can crash or hang: they are decoded in a process of their own. NIfTI, NRRD, MetaImage and
uncompressed DICOM are read by bounded Python here, as fast as by `read_image`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segmed.geometry import Grid
from segmed.io.arrays import load
from segmed.io.dicom.audit import SeriesAudit
from segmed.io.dicom.header import looks_like_dicom
from segmed.io.dicom.read import only_series
from segmed.io.dicom.series import read_series
from segmed.io.isolated import load_isolated, read_image_isolated, read_series_isolated
from segmed.io.limits import DEFAULT_LIMITS
from segmed.io.nifti import is_nifti
from segmed.io.raster import raster_format
from segmed.io.read import as_channels, grid_of, read_image, require_belonging
from segmed.io.source import Loaded
from segmed.io.stack import is_stack
from segmed.io.tensors import as_label
from segmed.metatensor import MetaTensor
from segmed.structures import LabelClass


def read_image_sandboxed(path: Path | str | SeriesAudit, *, num_channels: int = 1) -> MetaTensor:
    """`read_image`, in a process of its own where a compiled decoder is needed.

    Args:
        path: As for `read_image`.
        num_channels: As for `read_image`.

    Returns:
        The same image as from `read_image`.

    Raises:
        ImageError: As `read_image` raises it; besides, `decoder_hung`, `decoder_crashed` and
            `out_of_memory`.
    """
    if isinstance(path, SeriesAudit):
        return read_series_sandboxed(path)
    path = Path(path)
    start = _start(path)
    if is_nifti(start):
        return read_image(path, num_channels=num_channels)
    if raster_format(start) or is_stack(path):
        return read_image_isolated(path)
    if path.is_dir() or looks_like_dicom(start[:132]):
        return read_series_sandboxed(only_series(path))
    return read_image(path, num_channels=num_channels)


def _start(path: Path) -> bytes:
    """The first bytes of a file; none of anything else, which its reader will refuse."""
    if not path.is_file():
        return b""
    try:
        with path.open("rb") as stream:
            return stream.read(540)
    except OSError:
        return b""


def load_label_sandboxed(
    path: Path | str, *, grid: Grid | None = None, labels: Sequence[LabelClass] = ()
) -> Loaded:
    """The stored values of a label map, in a process of its own where a decoder is needed.

    Args:
        path: As for `read_label`.
        grid: Where to put a DICOM segmentation.
        labels: Structures to match its segments to, by name and code.

    Returns:
        The label as an array, not yet rounded.

    Raises:
        ImageError: As from `read_image_sandboxed`.
    """
    path = Path(path)
    start = _start(path)
    is_dicom = not is_nifti(start) and (path.is_dir() or looks_like_dicom(start[:132]))
    is_raster = raster_format(start) is not None or is_stack(path)
    if is_raster or (is_dicom and only_series(path).is_encapsulated):
        return load_isolated(path, exact=True, grid=grid, labels=labels)
    return load(path, DEFAULT_LIMITS, exact=True, grid=grid, labels=labels)


def read_label_sandboxed(
    path: Path | str, *, like: MetaTensor | None = None, labels: Sequence[LabelClass] = ()
) -> MetaTensor:
    """`read_label`, in a process of its own where a compiled decoder is needed.

    Args:
        path: As for `read_label`.
        like: The image it belongs to.
        labels: As for `read_label`.

    Returns:
        The same label map as from `read_label`.

    Raises:
        ImageError: As from `read_image_sandboxed`, and `not_integer`.
    """
    grid = None if like is None else grid_of(like)
    loaded = load_label_sandboxed(path, grid=grid, labels=labels)
    require_belonging(loaded, like)
    return as_label(loaded)


def read_images_sandboxed(paths: Sequence[Path | str], *, num_channels: int = 1) -> MetaTensor:
    """`read_images`, each of them by `read_image_sandboxed`."""
    expected = num_channels if len(paths) == 1 else 1
    images = [read_image_sandboxed(path, num_channels=expected) for path in paths]
    return as_channels(images, paths)


def read_series_sandboxed(audit: SeriesAudit) -> MetaTensor:
    """`dicom.read_series`, in a process of its own where pixels are compressed.

    Args:
        audit: What `dicom.scan` said of the series.

    Raises:
        ImageError: The series is refused, a slice cannot be decoded, or its decoder crashed.
    """
    return read_series_isolated(audit) if audit.is_encapsulated else read_series(audit)
