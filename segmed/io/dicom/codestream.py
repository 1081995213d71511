"""Look into a compressed frame before a decoder does: is it whole, and as large as stated?

Decoders believe the size that the code stream states, however large, and some fill up a stream that
ends early without a word.

Source:
    ITU-T T.81 (JPEG) B.2.2, T.87 (JPEG-LS) C.2.2, T.800 (JPEG 2000) A.5.1; DICOM PS3.5 annex G
    (RLE) and section 8.2 (encapsulated pixels that contradict the header).
"""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segmed.errors import ImageError

JPEG_FAMILY = "1.2.840.10008.1.2.4."
"""Start of the transfer syntaxes of JPEG, JPEG-LS and JPEG 2000."""

RLE_HEADER = struct.Struct("<16I")
"""Number of segments and the offset of each, at the begin of a frame."""

_END = b"\xff\xd9"
_JPEG_2000 = b"\xff\x4f\xff\x51"
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_NO_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


def check_codestream(stream: bytes, rows: int, columns: int, path: Path) -> None:
    """Refuse a compressed frame that is cut or of another size than the header states.

    Args:
        stream: One frame of the JPEG family.
        rows: Rows that the DICOM header states.
        columns: Columns that it states.
        path: The file, for the message.

    Raises:
        ImageError: `truncated` or `undecodable`.
    """
    if _END not in stream[-4096:].rstrip(b"\0")[-16:]:  # padding is not part of the stream
        raise ImageError(
            f"{path.name}: its compressed pixels end too early; fetch it again",
            reason="truncated",
            paths=[path],
        )
    size = stated_size(stream)
    if size != (rows, columns):
        raise ImageError(
            f"{path.name}: its compressed pixels state the size {size}, the header "
            f"{(rows, columns)}; fetch it again",
            reason="undecodable",
            paths=[path],
        )


def check_run_lengths(stream: bytes, rows: int, columns: int, path: Path) -> None:
    """Refuse a run-length coded frame that contains rows or columns beyond those in the header.

    Decoders drop what is too much. Less than a row or column of it is padding.

    Args:
        stream: One frame.
        rows: Rows that the DICOM header states.
        columns: Columns that it states.
        path: The file, for the message.

    Raises:
        ImageError: `undecodable`.
    """
    number, *offsets = RLE_HEADER.unpack_from(stream)
    bounds = [*offsets[:number], len(stream)]
    for start, stop in pairwise(bounds):
        found = _unpacked_bytes(stream[start:stop])
        if found - rows * columns >= min(rows, columns):
            raise ImageError(
                f"{path.name}: its compressed pixels contain {found} values, the header accounts "
                f"for {rows} x {columns}; fetch it again",
                reason="undecodable",
                paths=[path],
            )


def _unpacked_bytes(segment: bytes) -> int:
    """Bytes that a run-length coded segment unpacks to."""
    total = at = 0
    end = len(segment) - 1
    while at < end:
        count = segment[at]
        if count < 128:
            total += min(count + 1, end - at)
            at += count + 2
        elif count > 128:
            total += 257 - count
            at += 2
        else:
            at += 1
    return total


def check_sign(stream: bytes, values: npt.NDArray[Any], path: Path) -> None:
    """Refuse a JPEG 2000 frame whose values depend on the sign that stream and header contradict.

    The standard trusts the stream, most readers the header. Values that both read alike are sound.

    Args:
        stream: One frame.
        values: What it was decoded to, by the header.
        path: The file, for the message.

    Raises:
        ImageError: `undecodable`.
    """
    if stream[:4] != _JPEG_2000 or len(stream) < 43:
        return
    is_signed, precision = bool(stream[42] & 0x80), (stream[42] & 0x7F) + 1
    if is_signed == np.issubdtype(values.dtype, np.signedinteger):
        return
    if int(values.min()) < 0 or int(values.max()) >= 1 << (precision - 1):
        stated = ("signed", "unsigned") if is_signed else ("unsigned", "signed")
        raise ImageError(
            f"{path.name}: its JPEG 2000 pixels are {stated[0]}, {stated[1]} by the header, "
            "and their values depend on it; store it uncompressed by a tool that you trust",
            reason="undecodable",
            paths=[path],
        )


def stated_size(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns that a code stream states; None where it states none."""
    if stream[:4] == _JPEG_2000 and len(stream) >= 24:
        right, bottom, left, top = struct.unpack_from(">4I", stream, 8)
        return bottom - top, right - left
    frame = _frame_header(stream)
    if frame is None:
        return None
    rows, columns = struct.unpack_from(">2H", stream, frame + 5)
    return rows, columns


def stated_precision(stream: bytes) -> int | None:
    """Bits of a sample that a JPEG or JPEG-LS stream states; None if it states none."""
    frame = _frame_header(stream)
    return None if frame is None else stream[frame + 4]


def _frame_header(stream: bytes) -> int | None:
    """Offset of the marker of the frame header."""
    position = 2
    while position + 9 <= len(stream) and stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker in _FRAME_MARKERS:
            return position
        position += 1 if marker == 0xFF else 2
        if marker not in _NO_LENGTH and marker != 0xFF:
            position += struct.unpack_from(">H", stream, position)[0]
    return None
