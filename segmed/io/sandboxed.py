"""Read files that nobody vouches for, without paying for a process where none is needed.

Compressed DICOM pixels and raster images go through compiled decoders, which a damaged or hostile
file can crash or hang: they are decoded in a process of their own. NIfTI, NRRD, MetaImage and
uncompressed DICOM are read by bounded Python here, as fast as by `read_image`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segmed.formats import RASTER_FORMATS
from segmed.geometry import Grid
from segmed.io.arrays import load
from segmed.io.dicom.audit import SeriesAudit
from segmed.io.dicom.read import only_series
from segmed.io.dicom.series import read_series
from segmed.io.head import FileHead, sniff
from segmed.io.isolated import load_isolated, read_image_isolated, read_series_isolated
from segmed.io.limits import DEFAULT_LIMITS
from segmed.io.read import as_channels, grid_of, read_image, require_belonging
from segmed.io.source import Loaded
from segmed.io.stack import is_stack
from segmed.io.tensors import as_label
from segmed.metatensor import MetaTensor
from segmed.structures import LabelClass


def read_image_sandboxed(
    path: Path | str | SeriesAudit | FileHead, *, num_channels: int = 1
) -> MetaTensor:
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
    head, path = _sniffed(path)
    kind = head.format if head else None
    if kind in RASTER_FORMATS or (head is None and is_stack(path)):
        return read_image_isolated(path)
    if kind == "dicom" or path.is_dir():
        return read_series_sandboxed(only_series(path))
    return read_image(head or path, num_channels=num_channels)


def _sniffed(path: Path | str | FileHead) -> tuple[FileHead | None, Path]:
    """Head and path of a file; no head of anything else, which its reader will refuse."""
    place = path.path if isinstance(path, FileHead) else Path(path)
    if not place.is_file():
        return None, place
    try:
        return sniff(path if isinstance(path, FileHead) else place), place
    except OSError:
        return None, place


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
    head, path = _sniffed(path)
    kind = head.format if head else None
    is_raster = kind in RASTER_FORMATS or (head is None and is_stack(path))
    is_dicom = kind == "dicom" or path.is_dir()
    if is_raster or (is_dicom and only_series(path).is_encapsulated):
        return load_isolated(path, exact=True, grid=grid, labels=labels)
    return load(head or path, DEFAULT_LIMITS, exact=True, grid=grid, labels=labels)


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
