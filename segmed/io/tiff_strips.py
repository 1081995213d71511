"""Strips of a TIFF: a file whose directory places them wrongly is refused before they are read."""

from __future__ import annotations

import struct
from math import ceil
from pathlib import Path
from typing import Any

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from segmed.io.bytestream import refusal, truncated

ROWS, OFFSETS, COUNTS, PLANAR, SAMPLES, COMPRESSION = 278, 273, 279, 284, 277, 259
SINGLE = (256, 257, 259, 262, 274, 277, 278, 284)
"""Entries of one value: width, height, compression, meaning, orientation, samples, rows, planes."""

ONE_A_SAMPLE = (258, 339)
"""Entries of one value, or one a sample: bits, kind of numbers."""

SMALLEST_OFFSET = 8
"""Bytes of the header, before which nothing else can be."""

SEPARATE_PLANES = 2

BITS, FORMAT = 258, 339
FORMATS = {1: "unsigned", 2: "signed", 3: "float", 5: "complex", 6: "complex"}
"""Kind of numbers, by the entry `SampleFormat`."""

HEADER_BYTES, BIG_HEADER_BYTES = 8, 16

STRIP_PADDING = 16
"""Bytes behind the last row of a strip that are passed over."""


def check_strips(tags: Any, shape: tuple[int, int], bits: int, path: Path) -> None:
    """Validate number and place of the strips, which Pillow leaves to chance.

    Args:
        tags: The directory, as Pillow gives it.
        shape: Rows and columns.
        bits: Bits of one value.
        path: The file.

    Raises:
        ImageError: `corrupt` or `truncated`.
    """
    _check_counts(tags, path)
    if OFFSETS not in tags:
        return  # tiles, or nothing that could be decoded
    offsets, counts = _numbers(tags, OFFSETS), _numbers(tags, COUNTS)
    rows = min(max(_numbers(tags, ROWS)[:1] or [shape[0]]), shape[0])
    samples = (_numbers(tags, SAMPLES) or [1])[0]
    planes = samples if _numbers(tags, PLANAR) == [SEPARATE_PLANES] else 1
    expected = ceil(shape[0] / rows) * planes if rows > 0 else 0
    if len(offsets) != expected or (counts and len(counts) != expected):
        raise refusal(
            path, "corrupt", f"{shape[0]} rows need {expected} strips, it has {len(offsets)}"
        )
    if min(offsets) < SMALLEST_OFFSET or min(counts, default=1) < 1:
        raise refusal(path, "corrupt", "a strip of its pixels is outside the file")
    size = path.stat().st_size
    if max(map(sum, zip(offsets, counts, strict=False)), default=0) > size:
        raise truncated(path, "the file ends before its last strip of pixels")
    if counts and _numbers(tags, COMPRESSION) in ([], [1]):
        row = ceil(shape[1] * bits * samples / planes / 8)
        need = row * shape[0] * planes
        if sum(counts) < need:
            raise truncated(path, f"its strips have {sum(counts)} of {need} bytes of pixels")
        if max(counts) > row * rows + STRIP_PADDING:
            raise refusal(
                path,
                "trailing_data",
                f"a strip of {rows} rows of {row} bytes has {max(counts)} bytes; the directory "
                "does not describe this file: restore it from its source",
            )


def stated_pixels(path: Path) -> str:
    """Description of TIFF pixels that Pillow cannot identify; empty without valid tags.

    Args:
        path: The file.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(BIG_HEADER_BYTES)
            is_big = start[2:3] == b"+" or start[3:4] == b"+"
            tags = ImageFileDirectory_v2(start if is_big else start[:HEADER_BYTES])
            stream.seek(tags.next)
            tags.load(stream)
        bits, kinds = max(_numbers(tags, BITS)), _numbers(tags, FORMAT) or [1]
        size = _numbers(tags, 256) + _numbers(tags, 257)
    except (UserWarning, OSError, ValueError, SyntaxError, TypeError, LookupError, struct.error):
        return ""
    if len(size) != 2 or bits not in range(1, 129) or kinds[0] not in FORMATS:
        return ""
    compression = (_numbers(tags, COMPRESSION) or [1])[0]
    packed = "" if compression == 1 else f" of compression {compression}"
    return f"{bits}-bit {FORMATS[kinds[0]]} pixels{packed}"


def _check_counts(tags: Any, path: Path) -> None:
    """Refuse entries that have more or fewer values than they can have."""
    samples = (_numbers(tags, SAMPLES) or [1])[0]
    for number in (*SINGLE, *ONE_A_SAMPLE):
        value = tags.get(number, 0)
        count = len(value) if isinstance(value, tuple) else 1
        if count != 1 and (number in SINGLE or count != samples):
            raise refusal(path, "corrupt", f"entry {number} of its directory has {count} values")


def _numbers(tags: Any, number: int) -> list[int]:
    """Values of an entry; none where it is missing or has no whole numbers."""
    value = tags.get(number, ())
    values = value if isinstance(value, tuple) else (value,)
    return [int(one) for one in values if isinstance(one, int)]
