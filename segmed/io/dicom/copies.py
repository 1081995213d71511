"""Byte-equal copies among the files of one series."""

from __future__ import annotations

import filecmp
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from segmed.io.dicom.header import DicomHeader


def without_copies(
    headers: Sequence[DicomHeader],
) -> tuple[list[DicomHeader], tuple[Path, ...]]:
    """Set aside files that are byte for byte the same as another one of the series.

    Files of one SOPInstanceUID and different bytes all stay; the audit refuses them.

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
        if any(_are_equal(header.path, other.path) for other in same):
            copies.append(header.path)
            continue
        same.append(header)
        kept.append(header)
    return kept, tuple(copies)


def _are_equal(path: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(path, other, shallow=False)
    except OSError:
        return False
