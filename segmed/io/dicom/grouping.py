"""The one rule by which DICOM files become series: for `scan`, `predict`, `archive` and manifests.

- Files of one SeriesInstanceUID are one series, in whatever folders they are. Objects that are no
  images (reports, presentation states) are a series apart, also under the UID of the images.
- Images without that UID are one series per folder, patient, study, frame of reference, modality
  and series number; where exactly one series with a UID is in the folder, they are its images.
- One UID with several patients or studies: series of their own if each is in folders of its own
  and their places in space overlap or differ in frame; else they are audited together and refused.
- A file of which nothing can be read is held against the only series of its folder, if it is named
  like an image; beside several series it is an entry of its own, and each of them gets a note.
- A DICOMDIR, an empty lock file, a text or a picture is not an image: `SeriesIndex.passed_over`.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from segmed.formats import DICOM_SUFFIXES
from segmed.io.dicom.audit import SeriesAudit, judge
from segmed.io.dicom.checks import is_object
from segmed.io.dicom.header import DicomHeader, read_header, tolerant_pydicom
from segmed.io.dicom.uid import short_hash

DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
"""SOP class of a DICOMDIR."""

Kind = Literal["image", "nameless", "object", "damaged", "lost"]

COMMIT_EVERY = 2000
BARE_SUFFIXES = frozenset({"", "#", ".img"})
"""Kinds of suffix of DICOM images that are named by number or not at all."""

LOST_BESIDE = "{} unreadable files beside it, among several series: it may lack images"
NAMELESS_ELSEWHERE = (
    "without SeriesInstanceUID, and images of the same study and series number are in other "
    "folders: it may lack images"
)
SHARED_UID = "another patient or study has the same SeriesInstanceUID"


class SeriesIndex:
    """DICOM files of any folders, grouped into series.

    Args:
        path: File for the index, made anew, so that memory does not grow with the archive; None
            keeps it in memory together with the headers, so that each file is read once.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._headers: dict[Path, DicomHeader] | None = {} if path is None else None
        if path is not None:
            path.unlink(missing_ok=True)
        self._connection = sqlite3.connect(path or ":memory:", check_same_thread=False)
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute(
            "CREATE TABLE files (study TEXT, series TEXT, kind TEXT, folder BLOB, path BLOB)"
        )
        self._waiting = 0
        self._passed_over: list[Path] = []

    def close(self) -> None:
        """Close the index file."""
        self._connection.close()

    @tolerant_pydicom()
    def add(self, path: Path) -> bool:
        """Read the header of one file and index it.

        Returns:
            False if the file is not DICOM, or is a directory of DICOM files.
        """
        header = read_header(path)
        if header is None or _is_directory(header):
            return False
        if self._headers is not None:
            self._headers[path] = header
        kind = kind_of(header)
        row = (study_key(header), series_key(header, kind), kind, _blob(path.parent), _blob(path))
        self._connection.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?)", row)
        self._waiting += 1
        if self._waiting >= COMMIT_EVERY:
            self._connection.commit()
            self._waiting = 0
        return True

    @property
    def passed_over(self) -> tuple[Path, ...]:
        """Indexed files that are parts of no series; complete after `studies`."""
        return tuple(self._passed_over)

    def studies(self) -> Iterator[list[SeriesAudit]]:
        """The audited series of each study, one study in memory at a time.

        Unreadable files that belong to no series come last, each alone.
        """
        self._connection.commit()
        self._connection.execute("CREATE INDEX by_series ON files (series, path)")
        self._connection.execute("CREATE INDEX by_folder ON files (folder, series)")
        self._adopt_nameless()
        alone, beside = self._adopt_lost()
        groups = self._connection.execute(
            "SELECT MIN(study), series FROM files WHERE kind NOT IN ('lost', 'damaged') "
            "GROUP BY series ORDER BY 1, 2"
        ).fetchall()
        by_study: dict[str, list[str]] = defaultdict(list)
        for study, series in groups:
            by_study[study].append(series)
        for names in by_study.values():
            yield from self._study(names, beside)
        for path in alone:
            if (header := self._header_of(path)) is not None:
                yield [judge([header])]

    def _study(self, names: Sequence[str], beside: dict[str, int]) -> Iterator[list[SeriesAudit]]:
        """The series of one study; those that share a UID with another patient come alone."""
        together = []
        members = {name: _by_owner(self._members(name)) for name in names}
        over_folders = Counter(_nameless_kind(parts[0]) for parts in members.values())
        for name, parts in members.items():
            notes = [LOST_BESIDE.format(beside[name])] if name in beside else []
            kind = _nameless_kind(parts[0])
            if kind is not None and over_folders[kind] > 1:
                notes.append(NAMELESS_ELSEWHERE)
            if len(parts) == 1:
                together.append(_noted(judge(parts[0]), notes))
                continue
            for part in parts:
                yield [_noted(judge(part), [*notes, SHARED_UID])]
        if together:
            yield together

    def _members(self, series: str) -> list[DicomHeader]:
        rows = self._connection.execute(
            "SELECT path FROM files WHERE series = ? ORDER BY path", (series,)
        )
        found = (self._header_of(_path(row[0])) for row in rows)
        return [header for header in found if header is not None]

    def _header_of(self, path: Path) -> DicomHeader | None:
        return _header(path) if self._headers is None else self._headers[path]

    def _adopt_nameless(self) -> None:
        """Give images without a series UID to the only series that their folder has."""
        rows = self._connection.execute(
            "SELECT DISTINCT folder, study, series FROM files WHERE kind = 'nameless'"
        ).fetchall()
        for folder, study, series in rows:
            owners = self._connection.execute(
                "SELECT DISTINCT series, study FROM files WHERE folder = ? AND kind = 'image' "
                "LIMIT 2",
                (folder,),
            ).fetchall()
            if len(owners) == 1 and owners[0][1] == study:
                self._connection.execute(
                    "UPDATE files SET series = ? WHERE series = ?", (owners[0][0], series)
                )

    def _adopt_lost(self) -> tuple[list[Path], dict[str, int]]:
        """Give unreadable files to the only series of their folder.

        Returns:
            Those that are entries of their own, and how many are beside each series.
        """
        lost = self._connection.execute(
            "SELECT folder, path, kind FROM files WHERE kind IN ('lost', 'damaged') ORDER BY path"
        ).fetchall()
        by_folder: dict[bytes, list[tuple[Path, str]]] = defaultdict(list)
        for folder, path, kind in lost:
            by_folder[folder].append((_path(path), kind))
        alone: list[Path] = []
        beside: dict[str, int] = defaultdict(int)
        for folder, found in by_folder.items():
            rows = self._connection.execute(
                "SELECT series, path FROM files WHERE folder = ? AND kind IN ('image', 'nameless')",
                (folder,),
            ).fetchall()
            names = [_path(path).name for _, path in rows]
            images = [p for p, kind in found if kind == "damaged" or may_be_image(p.name, names)]
            self._passed_over += [path for path, _ in found if path not in set(images)]
            owners = sorted({series for series, _ in rows})
            if len(owners) == 1:
                self._connection.executemany(
                    "UPDATE files SET series = ?, kind = 'image' WHERE path = ?",
                    [(owners[0], _blob(path)) for path in images],
                )
                continue
            alone += images
            for owner in owners if images else ():
                beside[owner] += len(images)
        return alone, beside


def kind_of(header: DicomHeader) -> Kind:
    """Part that a file plays among the files of its folder.

    `image`, `nameless` (an image without a series UID) or `object` (a report and the like); of
    files with neither series nor sound content `damaged`, or `lost` if it may not be DICOM at all.
    """
    if header.fault is not None and not header.series_uid:
        return "damaged" if header.is_certain else "lost"
    if is_object(header):
        return "object"
    return "image" if header.series_uid else "nameless"


def series_key(header: DicomHeader, kind: Kind) -> str:
    """Files of one series have one key."""
    if kind == "image":
        return _text(header.series_uid)
    if kind != "nameless":
        return short_hash(f"{kind} {header.series_uid or header.path}")
    parts = (
        str(header.path.parent),
        header.patient_key,
        header.study_uid,
        header.frame_of_reference,
        header.modality,
        header.series_number,
    )
    return short_hash("\0".join(parts))


def study_key(header: DicomHeader) -> str:
    """Key of patient and study: two patients are never one study, whatever its UID."""
    return f"{header.patient_key} {_text(header.study_uid)}"


def may_be_image(name: str, beside: Collection[str]) -> bool:
    """Return whether an unreadable file may be a lost image by its name.

    Args:
        name: Its name.
        beside: Names of the images in its folder.
    """
    suffix = _suffix_kind(name)
    if suffix in DICOM_SUFFIXES:
        return True
    is_numbered = bool(re.search(r"\d", name))
    if not beside:
        return suffix in BARE_SUFFIXES and is_numbered
    has_numbers = all(re.search(r"\d", other) for other in beside)
    return suffix in set(map(_suffix_kind, beside)) and (is_numbered or not has_numbers)


def _suffix_kind(name: str) -> str:
    """The suffix in lower case; `#` for one of digits, such as the last part of a UID."""
    suffix = Path(name).suffix.lower()
    return "#" if suffix[1:].isdigit() else suffix


def _is_directory(header: DicomHeader) -> bool:
    return header.sop_class == DIRECTORY_CLASS or header.path.name.upper() == "DICOMDIR"


def _by_owner(headers: Sequence[DicomHeader]) -> list[list[DicomHeader]]:
    """The files of one UID by patient and study, if these are clearly apart; else all as one."""
    owners: dict[str, list[DicomHeader]] = defaultdict(list)
    for header in headers:
        owners[study_key(header)].append(header)
    if len(owners) < 2:
        return [list(headers)]
    parts = list(owners.values())
    folders = [{header.path.parent for header in part} for part in parts]
    if sum(map(len, folders)) > len(set.union(*folders)):
        return [list(headers)]
    for number, part in enumerate(parts):
        if any(_continues(part, other) for other in parts[:number]):
            return [list(headers)]
    return parts


def _nameless_kind(headers: Sequence[DicomHeader]) -> tuple[str, ...] | None:
    """Return the common key of images of one series without a UID; None if it has a UID."""
    first = headers[0]
    if first.series_uid or first.fault is not None:
        return None
    return first.frame_of_reference, first.modality, first.series_number


def _continues(part: Sequence[DicomHeader], other: Sequence[DicomHeader]) -> bool:
    """Return whether two sets of images may be halves of one stack: one space, no common place."""
    if {header.frame_of_reference for header in part}.isdisjoint(
        header.frame_of_reference for header in other
    ):
        return False
    return _places(part).isdisjoint(_places(other))


def _places(headers: Sequence[DicomHeader]) -> set[tuple[float, ...] | None]:
    return {part.position for header in headers for part in header.slices}


def _noted(audit: SeriesAudit, notes: Sequence[str]) -> SeriesAudit:
    return replace(audit, notes=(*audit.notes, *notes)) if notes and audit.usable else audit


def _header(path: Path) -> DicomHeader | None:
    with tolerant_pydicom():
        return read_header(path)


def _text(value: str) -> str:
    """Text that a database takes: a damaged header may give anything."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def _blob(path: Path) -> bytes:
    """A path as its bytes, which need not be text."""
    return str(path).encode("utf-8", "surrogateescape")


def _path(blob: bytes) -> Path:
    return Path(blob.decode("utf-8", "surrogateescape"))
