"""Formats that are known by their first bytes and are not read, each with the repair."""

from __future__ import annotations

from segmed.formats import FOREIGN_FORMATS

MGH_VERSION = b"\0\0\0\x01"
MGH_SUFFIXES = (".mgh", ".mgz", ".mgh.gz")
TAR_MAGIC, DICOM_MAGIC = slice(257, 262), slice(128, 132)


def foreign_format(name: str, start: bytes) -> tuple[str, str] | None:
    """Name and repair of a format that is not read; None where it is not known either.

    Args:
        name: The file's name; FreeSurfer's format has no magic of its own.
        start: Its first 540 bytes, unzipped.
    """
    if start[DICOM_MAGIC] == b"DICM":
        return "a gzipped DICOM file", "unpack it"
    if start[TAR_MAGIC] == b"ustar":
        return "a tar archive", "unpack it"
    if start[:4] == MGH_VERSION and name.lower().endswith(MGH_SUFFIXES):
        return "a FreeSurfer volume (MGH)", "convert it by `mri_convert IN OUT.nii.gz`"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "a WebP picture", "save it as PNG"
    found = (entry[1:] for entry in FOREIGN_FORMATS if start.startswith(entry[0]))
    return next(found, None)
