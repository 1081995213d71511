"""Form of an image file for tables, and the pages of a TIFF file."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from segmed.formats import format_named


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
