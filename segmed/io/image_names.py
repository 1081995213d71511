"""File name endings of images, and file names without them."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = (
    ".nii.gz",
    ".nii",
    ".hdr",
    ".nrrd",
    ".nhdr",
    ".mha",
    ".mhd",
    ".png",
    ".tif",
    ".tiff",
    ".jpg",
    ".jpeg",
)
"""Endings by which folders are searched for images; the format is decided by the content."""


def has_image_suffix(path: Path) -> bool:
    """True if the file name ends in one of `SUFFIXES`, in upper or lower case."""
    return path.name.lower().endswith(SUFFIXES)


def stem_of(path: Path) -> str:
    """File name without its image suffix; the whole name if it has none."""
    lower = path.name.lower()
    for suffix in SUFFIXES:
        if lower.endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name
