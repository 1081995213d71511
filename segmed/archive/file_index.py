"""An index of the DICOM files below a folder, kept on disk so that memory does not grow with it.

A series may be spread over several folders, and one folder may mix patients: only the identifiers
inside the files say what belongs together.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from segmed.io.dicom.audit import judge
from segmed.io.dicom.header import DicomHeader, read_header, tolerant_pydicom
from segmed.io.dicom.series import SeriesAudit

COMMIT_EVERY = 2000
DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
"""SOP class of a DICOMDIR."""


class FileIndex:
    """DICOM files by study and series.

    Args:
        path: A file for the index; made anew.
    """

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._connection = sqlite3.connect(path, check_same_thread=False)
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute(
            "CREATE TABLE files (study TEXT, series TEXT, folder TEXT, path TEXT)"
        )
        self._waiting = 0

    def close(self) -> None:
        """Close the index file."""
        self._connection.close()

    def add(self, path: Path) -> bool:
        """Read the identifiers of one file and index it; those of a damaged file are empty.

        Returns:
            False where the file is not DICOM, or a directory of DICOM files.
        """
        header = _header(path)
        if header is None or header.sop_class == DIRECTORY_CLASS:
            return False
        self._connection.execute(
            "INSERT INTO files VALUES (?, ?, ?, ?)",
            (header.study_uid, header.series_uid, str(path.parent), str(path)),
        )
        self._waiting += 1
        if self._waiting >= COMMIT_EVERY:
            self._connection.commit()
            self._waiting = 0
        return True

    def studies(self) -> Iterator[list[SeriesAudit]]:
        """The audited series of each study, one study in memory at a time.

        A damaged file that lies in a folder with files of exactly one series is held against that
        series, for it may be one of its slices; elsewhere it comes alone.
        """
        self._connection.commit()
        self._connection.execute("CREATE INDEX by_study ON files (study, series, path)")
        self._connection.execute("CREATE INDEX by_folder ON files (folder, series)")
        self._adopt_damaged()
        groups = self._connection.execute(
            "SELECT DISTINCT study FROM files WHERE series <> '' ORDER BY study"
        )
        for (study,) in groups:
            yield [judge(headers) for headers in self._series(study)]
        rows = self._connection.execute("SELECT path FROM files WHERE series = '' ORDER BY path")
        for (path,) in rows:
            header = _header(Path(path))
            if header is not None:
                yield [judge([header])]

    def _series(self, study: str) -> Iterator[list[DicomHeader]]:
        rows = self._connection.execute(
            "SELECT series, path FROM files WHERE study = ? AND series <> '' ORDER BY series, path",
            (study,),
        )
        found: dict[str, list[Path]] = {}
        for series, path in rows:
            found.setdefault(series, []).append(Path(path))
        for paths in found.values():
            yield [header for path in paths if (header := _header(path)) is not None]

    def _adopt_damaged(self) -> None:
        folders = self._connection.execute(
            "SELECT DISTINCT folder FROM files WHERE series = ''"
        ).fetchall()
        for (folder,) in folders:
            owners = self._connection.execute(
                "SELECT DISTINCT study, series FROM files WHERE folder = ? AND series <> '' "
                "LIMIT 2",
                (folder,),
            ).fetchall()
            if len(owners) == 1:
                self._connection.execute(
                    "UPDATE files SET study = ?, series = ? WHERE folder = ? AND series = ''",
                    (*owners[0], folder),
                )


def _header(path: Path) -> DicomHeader | None:
    with tolerant_pydicom():
        return read_header(path)
