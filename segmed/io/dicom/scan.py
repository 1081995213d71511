"""Sort any tree of files into DICOM series and judge each, by headers alone."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from segmed.errors import ImageError
from segmed.io.dicom.audit import SeriesAudit
from segmed.io.dicom.grouping import SeriesIndex

log = logging.getLogger(__name__)


def scan(folder: Path | str) -> list[SeriesAudit]:
    """Find every DICOM series under a folder, or in one file.

    Only headers are read. Files that are not DICOM, and hidden ones, are passed over. Which files
    belong together is the rule of `grouping`.

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
    return group_files(files_below(root))


def group_files(paths: Iterable[Path]) -> list[SeriesAudit]:
    """Audit the DICOM series among some files.

    Args:
        paths: Files of any kind and of any folders; those that are not DICOM are passed over.

    Returns:
        One audit a series, in the order of their first files.
    """
    index = SeriesIndex()
    try:
        number = sum(index.add(path) for path in paths)
        audits = [audit for study in index.studies() for audit in study]
    finally:
        index.close()
    log.info("scanned %d DICOM files into %d series", number, len(audits))
    return sorted(audits, key=lambda audit: min(map(str, audit.files)))


def files_below(root: Path) -> Iterator[Path]:
    """A file itself, or the files below a folder, hidden ones left out, in order of their names."""
    if root.is_file():
        yield root
        return
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            is_lost = path.is_symlink() and not path.exists()  # its series is not whole without it
            if not name.startswith(".") and (is_lost or path.is_file()):
                yield path
