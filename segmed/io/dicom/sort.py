"""Bring the series of a mixed tree into folders of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segmed.errors import UsageError
from segmed.io.dicom.audit import SeriesAudit
from segmed.io.dicom.uid import short_hash
from segmed.io.links import link_or_copy

SORTED_OBJECTS = frozenset({"SEG"})
"""Modalities that are not images and still belong to a data set: they contain its labels."""


def sort_series(audits: Sequence[SeriesAudit], folder: Path | str) -> dict[str, Path]:
    """Give each usable series, and each segmentation object, a folder of its own.

    Files become hard links where the disk allows it, else copies; the tree stays as it is. Names
    are hashes of identifiers: `PATIENT/STUDY/SERIES/0000.dcm`, numbered along the slice normal.

    Args:
        audits: What `scan` said of the tree.
        folder: Where the folders appear; empty or absent.

    Returns:
        The folder of each sorted series, by its name.

    Raises:
        UsageError: `folder` is not empty.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty: name a new folder for the sorted series")
    placed = {}
    for audit in audits:
        if not (audit.usable or audit.modality in SORTED_OBJECTS):
            continue
        # a series without UID is identified by its folder, and so is one that shares its UID
        series = short_hash(audit.series_uid or str(audit.files[0]))
        home = folder / audit.patient_key / short_hash(audit.study_uid) / series
        while home.exists():
            home = home.with_name(f"{home.name}-{short_hash(str(audit.files[0]))}")
        home.mkdir(parents=True)
        for number, path in enumerate(audit.files):
            link_or_copy(path, home / f"{number:04d}.dcm")
        placed[audit.name if audit.series_uid else str(home)] = home
    return placed
