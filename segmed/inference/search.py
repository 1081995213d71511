"""Search files and folders for what may be an image, without reading voxels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segmed.formats import has_image_suffix
from segmed.io.head import FileHead, sniff
from segmed.io.results import (
    DICOM_RESULTS,
    RUN_RECORD,
    is_archive_outputs,
    masks_by_name,
    results_among,
)

ARCHIVE_RESULTS = "the results of an archive run"


@dataclass
class FoundPaths:
    """Paths that a search met.

    Attributes:
        listed: Files that were named one by one.
        folders: Folders that were named.
        images: Image files by suffix that are not DICOM by content.
        dicom: Files whose content decides whether they are DICOM.
        unknown: Named files of no known suffix that are not DICOM, and folders without access.
        passed_over: Results of earlier runs, and why they are known as such.
        rank: Order in which paths were met.
        heads: What was sniffed of the files.
    """

    listed: set[Path] = field(default_factory=set)
    folders: list[Path] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)
    dicom: list[Path] = field(default_factory=list)
    unknown: list[Path] = field(default_factory=list)
    passed_over: dict[Path, str] = field(default_factory=dict)
    rank: dict[Path, int] = field(default_factory=dict)
    heads: dict[Path, FileHead] = field(default_factory=dict)

    def sniff(self, path: Path) -> FileHead | None:
        """Head of a plain file, read once; None if it cannot be opened."""
        if path not in self.heads:
            try:
                self.heads[path] = sniff(path)
            except OSError:
                return None
        return self.heads[path]

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
        head = found.sniff(path) if path.is_file() else None
        if head is not None and head.format == "dicom":
            found.add(path, found.dicom)
        elif has_image_suffix(path):
            found.add(path, found.images)
        else:
            found.add(path, found.unknown)
    return found


def _search_folder(
    folder: Path, found: FoundPaths, above: frozenset[str], inside: tuple[str, ...] = ()
) -> None:
    """Files of a folder, then those of the folders in it; a link to a folder above is left out.

    Args:
        folder: The folder.
        found: Takes what is found.
        above: Real paths of the folders above.
        inside: Names of the folders from the one that was given to this one.
    """
    place = os.path.realpath(folder)
    if place in above:
        return
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        found.add(folder, found.unknown)  # its reader says that it cannot be read
        return
    others = [entry for entry in entries if not entry.is_dir() and entry.name != RUN_RECORD]
    special = {entry for entry in others if entry.exists() and not entry.is_file()}
    found.passed_over |= dict.fromkeys(special, "no plain file")
    files = [entry for entry in others if entry not in special]
    named = [file for file in files if _is_image(file, found.sniff(file))]
    outputs = [file for file in files if file.name.endswith(DICOM_RESULTS)]
    results = results_among([found.heads.get(file, file) for file in [*named, *outputs]])
    results |= masks_by_name([file for file in named if file not in results], inside)
    found.passed_over |= results
    images = set(named)
    for file in files:
        if file not in results:
            found.add(file, found.images if file in images else found.dicom)
    for entry in entries:
        if entry.is_dir() and is_archive_outputs(entry):
            found.passed_over[entry] = ARCHIVE_RESULTS
        elif entry.is_dir():
            _search_folder(entry, found, above | {place}, (*inside, entry.name))


def _is_image(file: Path, head: FileHead | None) -> bool:
    """True for an image file by content, whatever its name, or else by name; False for DICOM."""
    if head is not None and head.format is not None:
        return head.format != "dicom"
    return has_image_suffix(file)
