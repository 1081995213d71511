"""Read files that nobody vouches for, without paying for a process where none is needed.

Compressed DICOM pixels and raster images go through compiled decoders, which a damaged or hostile
file can crash or hang: they are decoded in a process of their own. NIfTI, NRRD, MetaImage and
uncompressed DICOM are read by bounded Python here, as fast as by `read_image`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai.data import MetaTensor

from segmed.io.dicom import read_series
from segmed.io.dicom_audit import SeriesAudit
from segmed.io.dicom_header import looks_like_dicom
from segmed.io.dicom_read import only_series
from segmed.io.isolated import read_image_isolated, read_series_isolated
from segmed.io.nifti import is_nifti
from segmed.io.raster import raster_format
from segmed.io.read import as_channels, read_image


def read_image_carefully(path: Path | str) -> MetaTensor:
    """`read_image`, in a process of its own where a compiled decoder is needed.

    Args:
        path: As for `read_image`.

    Returns:
        The same image as from `read_image`.

    Raises:
        ImageError: As `read_image` raises it; besides, `decoder_hung`, `decoder_crashed` and
            `out_of_memory`.
    """
    path = Path(path)
    start = b""
    if path.is_file():
        with path.open("rb") as stream:
            start = stream.read(540)
    if is_nifti(start):
        return read_image(path)
    if path.is_dir() or looks_like_dicom(start[:132]):
        return read_series_carefully(only_series(path))
    return read_image_isolated(path) if raster_format(start) else read_image(path)


def read_images_carefully(paths: Sequence[Path]) -> MetaTensor:
    """`read_images`, each of them by `read_image_carefully`."""
    return as_channels([read_image_carefully(path) for path in paths], paths)


def read_series_carefully(audit: SeriesAudit) -> MetaTensor:
    """`dicom.read_series`, in a process of its own where pixels are compressed.

    Args:
        audit: What `dicom.scan` said of the series.

    Raises:
        ImageError: The series is refused, a slice cannot be decoded, or its decoder crashed.
    """
    return read_series_isolated(audit) if audit.is_encapsulated else read_series(audit)
