"""Search files and folders for what may be an image, without reading voxels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segmed.formats import has_image_suffix
from segmed.io.dicom.header import looks_like_dicom
from segmed.io.results import DICOM_RESULTS, RUN_RECORD, is_archive_outputs, results_among

ARCHIVE_RESULTS = "the results of an archive run"


@dataclass
class FoundPaths:
    """Paths that a search met.

    Attributes:
        listed: Files that were named one by one.
        folders: Folders that were named.
        images: Image files by suffix.
        dicom: Files whose content decides whether they are DICOM.
        unknown: Named files of no known suffix that are not DICOM, and folders without access.
        passed_over: Results of earlier runs, and why they are known as such.
        rank: Order in which paths were met.
    """

    listed: set[Path] = field(default_factory=set)
    folders: list[Path] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)
    dicom: list[Path] = field(default_factory=list)
    unknown: list[Path] = field(default_factory=list)
    passed_over: dict[Path, str] = field(default_factory=dict)
    rank: dict[Path, int] = field(default_factory=dict)

    def add(self, path: Path, kind: list[Path]) -> None:
        """Keep a path, unless it has been met."""
        if path not in self.rank:
            self.rank[path] = len(self.rank)
            kind.append(path)


def search(paths: Sequence[Path]) -> FoundPaths:
    """Go through files and folders of any depth.

    Args:
        paths: Files count whatever they are; of folders, hidden files and results of earlier runs
            do not.
    """
    found = FoundPaths()
    for path in map(Path, paths):
        if path.is_dir():
            found.add(path, found.folders)
            _search_folder(path, found, frozenset())
            continue
        found.listed.add(path)
        if has_image_suffix(path):
            found.add(path, found.images)
        elif path.is_file() and _begins_as_dicom(path):
            found.add(path, found.dicom)
        else:
            found.add(path, found.unknown)
    return found


def _search_folder(folder: Path, found: FoundPaths, above: frozenset[str]) -> None:
    """Files of a folder, then those of the folders in it; a link to a folder above is left out."""
    place = os.path.realpath(folder)
    if place in above:
        return
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        found.add(folder, found.unknown)  # its reader says that it cannot be read
        return
    files = [entry for entry in entries if entry.is_file() and entry.name != RUN_RECORD]
    named = [file for file in files if has_image_suffix(file) or file.name.endswith(DICOM_RESULTS)]
    results = results_among(named)
    found.passed_over |= results
    for file in files:
        if file not in results:
            found.add(file, found.images if has_image_suffix(file) else found.dicom)
    for entry in entries:
        if entry.is_dir() and is_archive_outputs(entry):
            found.passed_over[entry] = ARCHIVE_RESULTS
        elif entry.is_dir():
            _search_folder(entry, found, above | {place})


def _begins_as_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return looks_like_dicom(stream.read(132))
    except OSError:
        return False
