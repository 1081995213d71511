"""The first bytes of a file, read once: its format by content, and by its name where that is cut.

All format detection is done by `sniff`; its result is passed down to the readers in
place of the path, so that no file is opened again to be recognised. Knows neither torch, nibabel
nor pydicom.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from segmed.errors import ImageError
from segmed.formats import FORMATS, format_named
from segmed.io.bytestream import GZIP_MAGIC, stream_errors

FileKind = Literal["volume", "raster", "dicom", "other"]

HEAD_BYTES = 4096
"""Bytes that are kept, unzipped where the file is zipped."""

HEADER_BYTES = 540
"""Bytes that must be readable: the longest header by which a format is recognised."""

NIFTI_MAGICS = {b"n+1\0": "single", b"ni1\0": "pair", b"n+2\0": "single", b"ni2\0": "pair"}
NRRD_MAGIC = b"NRRD00"
RASTER_MAGICS = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
    b"\xff\xd8\xff": "jpeg",
}
DICOM_MAGIC = b"DICM"


def is_nifti(start: bytes) -> bool:
    """True if the (unzipped) first 540 bytes of a file are a NIfTI header."""
    return (start[344:348] in NIFTI_MAGICS) or (start[4:8] in NIFTI_MAGICS)


def is_analyze(path: Path, start: bytes) -> bool:
    """True for the header of an Analyze 7.5 pair, which `read_nifti` refuses by name."""
    is_named_so = path.name.lower().endswith((".hdr", ".hdr.gz"))
    return is_named_so and start[:4] in {struct.pack(order + "i", 348) for order in "<>"}


def is_metaimage(start: bytes) -> bool:
    """True if a file begins as a MetaImage header."""
    head = start[:HEADER_BYTES].lstrip()
    return head.startswith((b"ObjectType", b"NDims", b"Comment")) and b"=" in head


def raster_format(start: bytes) -> str | None:
    """`png`, `tiff` or `jpeg`, by a file's first bytes; None for anything else."""
    return next((name for magic, name in RASTER_MAGICS.items() if start.startswith(magic)), None)


def looks_like_dicom(start: bytes) -> bool:
    """True if the first 132 bytes of a file are DICOM's, with or without its preamble."""
    start = start[:132]
    if start[128:132] == DICOM_MAGIC:
        return True
    if len(start) < 16:
        return False
    group, element = struct.unpack("<HH", start[:4])
    if (group, element) not in {(2, 0), (2, 1), (2, 2), (8, 0), (8, 1), (8, 5), (8, 8), (8, 0x16)}:
        return False
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    return explicit or struct.unpack("<I", start[4:8])[0] <= 256


@dataclass(frozen=True)
class FileHead:
    """A file that has been sniffed.

    Attributes:
        path: The file.
        stamp: Size in bytes, time of the last change in ns and inode when it was sniffed.
        is_zipped: It is a gzip file.
        start: Its first `HEAD_BYTES` bytes, unzipped; empty where the stream is damaged.
        damage: The damage of the stream, if it does not reach over the header.
    """

    path: Path
    stamp: tuple[int, int, int]
    is_zipped: bool
    start: bytes = field(repr=False)
    damage: ImageError | None = None

    @cached_property
    def format(self) -> str | None:
        """Name of its row in the table of formats, by content alone; None for anything else."""
        if is_nifti(self.start) or is_analyze(self.path, self.start):
            return "nifti"
        if self.is_zipped:
            return None
        if looks_like_dicom(self.start):
            return "dicom"
        if self.start.startswith(NRRD_MAGIC):
            return "nrrd"
        return "metaimage" if is_metaimage(self.start) else raster_format(self.start)

    @property
    def kind(self) -> FileKind:
        """Kind of the file by content, else by name.

        A damaged file counts as what its name says, so that it is refused by name and not passed
        over; so does a picture that is named as a volume.
        """
        by_name = format_named(self.path)
        row = next((row for row in FORMATS if row.name == self.format), by_name)
        if row is not None and row.kind == "raster" and by_name is not None:
            row = by_name
        return row.kind if row else "other"

    def require_sound(self) -> None:
        """Raise an error if the file is empty, or is not a valid gzip file though it should be.

        Raises:
            ImageError: `empty_file`, `not_gzip`, `truncated` or `corrupt`.
        """
        name = self.path.name
        if self.stamp[0] == 0:
            message = f"{name}: the file is empty; fetch it again"
            raise ImageError(message, reason="empty_file", paths=[self.path])
        if self.path.suffix == ".gz" and not self.is_zipped:
            raise ImageError(
                f"{name}: named as gzip, its content is not; fetch it again or rename it",
                reason="not_gzip",
                paths=[self.path],
            )
        if self.damage is not None:
            raise self.damage


def sniff(path: Path | FileHead) -> FileHead:
    """Read the first bytes of a file; a head is given back unless its file has changed since.

    Args:
        path: A plain file.

    Raises:
        OSError: It cannot be opened.
    """
    if isinstance(path, FileHead):
        return path if _stamp(path.path.stat()) == path.stamp else sniff(path.path)
    with path.open("rb") as stream:
        stamp = _stamp(os.fstat(stream.fileno()))
        start = stream.read(HEAD_BYTES)
        if not start.startswith(GZIP_MAGIC):
            return FileHead(path, stamp, is_zipped=False, start=start)
        stream.seek(0)
        start, damage = b"", None
        try:
            with stream_errors(path), gzip.open(stream, "rb") as inside:
                start = inside.read(HEADER_BYTES)
                start += _rest(inside)
        except ImageError as error:
            damage = error
    return FileHead(path, stamp, is_zipped=True, start=start, damage=damage)


def _rest(stream: gzip.GzipFile) -> bytes:
    """The bytes behind the header; none where the stream is damaged, which its reader reports."""
    try:
        return stream.read(HEAD_BYTES - HEADER_BYTES)
    except (EOFError, OSError, zlib.error):
        return b""


def _stamp(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ino
