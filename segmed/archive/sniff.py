"""File types, by content first and by name second."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Literal

from PIL import Image

from segmed.formats import DICOM_SUFFIXES, RASTER_SUFFIXES, VOLUME_SUFFIXES, format_named
from segmed.io.dicom.header import looks_like_dicom
from segmed.io.metaimage import is_metaimage
from segmed.io.nifti import is_nifti
from segmed.io.raster import raster_format

Kind = Literal["volume", "raster", "dicom", "other"]

HEAD_BYTES = 540
GZIP_MAGIC = b"\x1f\x8b"


def kind_of(path: Path) -> Kind:
    """Kind of a file: what it contains, or claims to contain.

    A damaged file counts as what its name says, so that it is refused by name instead of passed
    over.

    Raises:
        OSError: The file cannot be opened.
    """
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if looks_like_dicom(head[:132]):
        return "dicom"
    if head[:2] == GZIP_MAGIC:
        head = _unzipped_head(path)
    if is_nifti(head) or head[:4] == b"NRRD" or is_metaimage(head):
        return "volume"
    name = path.name.lower()
    if name.endswith(VOLUME_SUFFIXES):
        return "volume"
    if raster_format(head) or name.endswith(RASTER_SUFFIXES):
        return "raster"
    return "dicom" if name.endswith(DICOM_SUFFIXES) else "other"


def _unzipped_head(path: Path) -> bytes:
    """The first bytes within a gzip file; empty where it is damaged."""
    with path.open("rb") as stream:
        try:
            return zlib.decompressobj(wbits=31).decompress(stream.read(4096), HEAD_BYTES)
        except zlib.error:
            return b""


def form_of_image(path: Path) -> str:
    """Name of an image file's form, for tables; `tiff stack` if it has several pages."""
    row = format_named(path)
    if row is None or row.kind == "dicom":
        return "nifti"
    return "tiff stack" if row.name == "tiff" and has_pages(path) else row.name


def has_pages(path: Path) -> bool:
    """True for a TIFF file of several pages, which is a volume; False if it cannot be opened."""
    try:
        with Image.open(path, formats=["TIFF"]) as image:
            return getattr(image, "n_frames", 1) > 1
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
