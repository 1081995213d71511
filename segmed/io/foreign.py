"""Formats that are known by their first bytes and are not read, each with the repair."""

from __future__ import annotations

FORMATS = (
    (b"GIF8", "a GIF picture", "save it as PNG"),
    (b"BM", "a BMP picture", "save it as PNG"),
    (b"\0\0\0\x0cjP", "a JPEG 2000 picture", "save it as PNG or TIFF"),
    (b"\xffO\xffQ", "a JPEG 2000 picture", "save it as PNG or TIFF"),
    (b"\0\0\0\x0cJXL", "a JPEG XL picture", "save it as PNG or TIFF"),
    (b"MATRIX7", "an ECAT 7 file", "convert it to NIfTI"),
    (b"# === DATA DESCRIPTION FILE", "a Philips PAR/REC header", "convert it to NIfTI"),
    (b"\x89HDF", "an HDF5 or MINC 2 file", "convert it to NIfTI"),
    (b"CDF\x01", "a MINC 1 file", "convert it to NIfTI"),
    (b"CDF\x02", "a MINC 1 file", "convert it to NIfTI"),
    (b"\x93NUMPY", "a numpy array, which states no geometry", "save it as NIfTI"),
    (b"MATLAB 5", "a MATLAB file, which states no geometry", "save its volume as NIfTI"),
    (b"PK\x03\x04", "a zip archive", "unpack it"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"%PDF", "a PDF document", "export its pictures"),
    (b"# vtk", "a VTK file", "convert it to NIfTI"),
    (b"<VTKFile", "a VTK file", "convert it to NIfTI"),
    (b"<?xml", "an XML document", "it holds no image"),
)  # fmt: skip
"""First bytes, name and repair."""

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
    found = (entry[1:] for entry in FORMATS if start.startswith(entry[0]))
    return next(found, None)
