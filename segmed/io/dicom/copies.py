"""Copies among the files of one series: their data sets are equal byte for byte.

Preamble and file meta information may differ: they say who wrote the file, not what it shows.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from segmed.io.dicom.header import DicomHeader

BLOCK = 1 << 20
_META_LENGTH = b"DICM\x02\x00\x00\x00UL\x04\x00"
"""Begin of the file meta information, whose length follows."""


def without_copies(
    headers: Sequence[DicomHeader],
) -> tuple[list[DicomHeader], tuple[Path, ...]]:
    """Set aside files whose data set is byte for byte that of another one of the series.

    Files of one SOPInstanceUID and different data sets all stay; the audit refuses them.

    Args:
        headers: Files of one series. The first of equal ones stays.

    Returns:
        The files that differ, and the copies.
    """
    by_uid: dict[str, list[DicomHeader]] = defaultdict(list)
    kept: list[DicomHeader] = []
    copies: list[Path] = []
    for header in headers:
        same = by_uid[header.sop_uid] if header.sop_uid else []
        if any(_are_equal(header, other) for other in same):
            copies.append(header.path)
            continue
        same.append(header)
        kept.append(header)
    return kept, tuple(copies)


def _are_equal(header: DicomHeader, other: DicomHeader) -> bool:
    if header.transfer_syntax != other.transfer_syntax:
        return False
    try:
        with header.path.open("rb") as one, other.path.open("rb") as two:
            return _rest_is_equal(one, two)
    except OSError:
        return False


def _rest_is_equal(one: IO[bytes], two: IO[bytes]) -> bool:
    """Return whether two files are equal from their data sets on."""
    one.seek(_data_set_start(one))
    two.seek(_data_set_start(two))
    while block := one.read(BLOCK):
        if block != two.read(BLOCK):
            return False
    return not two.read(1)


def _data_set_start(stream: IO[bytes]) -> int:
    """Offset behind the file meta information; 0 where the file has none of stated length."""
    start = stream.read(144)
    if start[128:140] != _META_LENGTH or len(start) < 144:
        return 0
    return 144 + int(struct.unpack("<I", start[140:144])[0])
