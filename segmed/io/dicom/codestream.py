"""Look into a compressed frame before a decoder does: is it whole, and as large as stated?

Decoders believe the size that the code stream states, however large, and some fill up a stream that
ends early without a word.

Source:
    ITU-T T.81 (JPEG) B.2.2, T.87 (JPEG-LS) C.2.2, T.800 (JPEG 2000) A.5.1.
"""

from __future__ import annotations

import struct
from pathlib import Path

from segmed.errors import ImageError

JPEG_FAMILY = "1.2.840.10008.1.2.4."
"""Start of the transfer syntaxes of JPEG, JPEG-LS and JPEG 2000."""

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
    if _END not in stream[-4096:].rstrip(b"\0")[-16:]:  # padding is no part of the stream
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
