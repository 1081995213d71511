"""Sort any tree of files into DICOM series and judge each, by headers alone."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from segmed.errors import ImageError
from segmed.io.dicom.audit import SeriesAudit, judge
from segmed.io.dicom.header import DicomHeader, read_header, tolerant_pydicom

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = {"", ".dcm", ".dicom", ".ima", ".img", ".dic"}
"""Suffixes of an empty file that count as a lost slice; `.123` and the like count too."""


def scan(folder: Path | str) -> list[SeriesAudit]:
    """Find every DICOM series under a folder, or in one file.

    Only headers are read. Files that are not DICOM, and hidden ones, are passed over. An empty or
    unreadable file that lies in a folder with files of exactly one series is held against that
    series, for it may be one of its slices; elsewhere it is an entry of its own.

    Args:
        folder: A folder of any depth, or a file.

    Returns:
        One audit a series, in the order of their first files.

    Raises:
        ImageError: `missing_file`: there is no such folder.
    """
    root = Path(folder)
    if not root.exists():
        raise ImageError(
            f"{root.name}: no such folder or file", reason="missing_file", paths=[root]
        )
    with tolerant_pydicom():
        headers = [header for path in _files(root) if (header := read_header(path))]
        headers = [header for header in headers if not _is_directory_record(header)]
        audits = [judge(group) for group in _grouped(headers)]
    log.info("scanned %d DICOM files into %d series", len(headers), len(audits))
    return audits


def _files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and path.is_file():
                yield path


def _is_directory_record(header: DicomHeader) -> bool:
    """DICOMDIR, and empty or odd files that never were images."""
    if header.sop_class == "1.2.840.10008.1.3.10" or header.path.name.upper() == "DICOMDIR":
        return True
    suffix = header.path.suffix.lower()
    named_like_image = suffix in IMAGE_SUFFIXES or suffix[1:].isdigit()
    return header.fault is not None and not header.sop_class and not named_like_image


def _grouped(headers: Sequence[DicomHeader]) -> Iterator[list[DicomHeader]]:
    """Files by series; lost ones with the only series of their folder, else alone."""
    groups: dict[str, list[DicomHeader]] = {}
    series_in: defaultdict[Path, set[str]] = defaultdict(set)
    for header in headers:
        if header.series_uid and header.has_pixels:
            series_in[header.path.parent].add(header.series_uid)
    for header in headers:
        key = header.series_uid
        if not key:
            here = series_in[header.path.parent]
            key = next(iter(here)) if len(here) == 1 else str(header.path)
        groups.setdefault(key, []).append(header)
    yield from groups.values()
