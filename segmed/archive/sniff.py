"""What a file is, by its content first and its name second."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Literal

from segmed.io.dicom.header import looks_like_dicom
from segmed.io.metaimage import is_metaimage
from segmed.io.nifti import is_nifti

Kind = Literal["volume", "dicom", "other"]

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
HEAD_BYTES = 540
GZIP_MAGIC = b"\x1f\x8b"


def kind_of(path: Path) -> Kind:
    """Whether a file holds (or claims to hold) a volume, a DICOM object, or something else.

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
    return "dicom" if name.endswith(DICOM_SUFFIXES) else "other"


def _unzipped_head(path: Path) -> bytes:
    """The first bytes within a gzip file; empty where it is damaged."""
    with path.open("rb") as stream:
        try:
            return zlib.decompressobj(wbits=31).decompress(stream.read(4096), HEAD_BYTES)
        except zlib.error:
            return b""


def form_of_volume(path: Path) -> str:
    """Name of a volume file's form, for tables."""
    name = path.name.lower()
    if name.endswith((".nrrd", ".nhdr")):
        return "nrrd"
    return "metaimage" if name.endswith((".mha", ".mhd")) else "nifti"
