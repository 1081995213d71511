"""Opinions, corrections and holds of an archive's reviewers, in an SQLite file beside its ledger.

The ledger has one writer, the run. Reviewers write to a file of their own, `review.sqlite`, at any
time, also during a run and from several processes. Nothing is ever overwritten: a later opinion or
correction is a further row.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segmed.errors import ServiceError, UsageError
from segmed.io.atomic import PRIVATE

REVIEW_FILE = "review.sqlite"
SCHEMA_VERSION = 1
HOLD_S = 90.0
"""Time after which a study is free again if its reviewer's page has stopped renewing its hold."""

MAX_AUTHOR, MAX_COMMENT = 80, 4000
"""Longest author and comment, in characters."""

Verdict = Literal["accepted", "rejected"]
VERDICTS: tuple[Verdict, ...] = ("accepted", "rejected")

Origin = Literal["page", "slicer", "pacs"]

TABLES = """
CREATE TABLE corrections (id INTEGER PRIMARY KEY, key TEXT NOT NULL, author TEXT NOT NULL,
    made REAL NOT NULL, file TEXT NOT NULL UNIQUE, sha256 TEXT, origin TEXT NOT NULL,
    base TEXT NOT NULL, uid TEXT NOT NULL DEFAULT '');
CREATE INDEX corrections_by_key ON corrections (key);
CREATE TABLE opinions (id INTEGER PRIMARY KEY, key TEXT NOT NULL, author TEXT NOT NULL,
    made REAL NOT NULL, verdict TEXT NOT NULL CHECK (verdict IN ('accepted', 'rejected', '')),
    comment TEXT NOT NULL, correction INTEGER REFERENCES corrections (id));
CREATE INDEX opinions_by_key ON opinions (key);
CREATE TABLE holds (key TEXT PRIMARY KEY, author TEXT NOT NULL, session TEXT NOT NULL,
    until REAL NOT NULL) WITHOUT ROWID;
"""


class StudyHeldError(UsageError):
    """Another reviewer has the study open."""


@dataclass(frozen=True)
class Correction:
    """A label map that a reviewer saved.

    Attributes:
        id: Number of the correction.
        key: Key of the study in the ledger.
        author: Who made it.
        made: When, in s since 1970.
        file: The label map, relative to the output folder.
        sha256: Hex digest of the file; None while it is being written.
        origin: `page`, `slicer` or `pacs`.
        base: SHA-256 of the label map that it began with.
        uid: SOPInstanceUID of the object it was read from; empty without one.
    """

    id: int
    key: str
    author: str
    made: float
    file: str
    sha256: str | None
    origin: str
    base: str
    uid: str


@dataclass(frozen=True)
class Opinion:
    """Opinion of a reviewer on one label map.

    Attributes:
        id: Number of the opinion.
        key: Key of the study in the ledger.
        author: Whose it is.
        made: When, in s since 1970.
        verdict: `accepted` or `rejected`; empty for a comment alone.
        comment: In words.
        correction: Number of the correction that it is about; None for the model's result.
    """

    id: int
    key: str
    author: str
    made: float
    verdict: str
    comment: str
    correction: int | None


@dataclass(frozen=True)
class Hold:
    """A study that a reviewer has open.

    Attributes:
        author: Who has it.
        session: The page that has it.
        until: When it is free again unless renewed, in s since 1970.
    """

    author: str
    session: str
    until: float


class ReviewStore:
    """The reviewers' file of an archive. Each call is one transaction of its own connection.

    Args:
        out_dir: Output folder of the archive.
        clock: Time in s since 1970.

    Raises:
        UsageError: The file is of a later version.
    """

    def __init__(self, out_dir: Path, clock: Callable[[], float] = time.time) -> None:
        self.out_dir = out_dir
        self._path = out_dir / REVIEW_FILE
        self._clock = clock
        if not self._path.exists():
            self._path.touch(mode=PRIVATE)
        with self._writing() as connection:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version == 0:
                for statement in TABLES.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        if version > SCHEMA_VERSION:
            raise UsageError(
                f"{self._path} has schema version {version}, this segmed reads {SCHEMA_VERSION}; "
                "use the segmed that wrote it"
            )

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(
                sqlite3.connect(self._path, timeout=10.0, isolation_level=None)
            ) as connection:
                yield connection
        except sqlite3.DatabaseError as error:
            raise ServiceError(
                f"{REVIEW_FILE} cannot be read or written ({error}); is the disk full, or is the "
                "file no database?"
            ) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._connected() as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:  # an interrupt too must release the file
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def hold(self, key: str, author: str, session: str) -> Hold:
        """Take or renew the hold of a study.

        Raises:
            StudyHeldError: Another page has it.
        """
        author, now = named_author(author), self._clock()
        with self._writing() as connection:
            held = _hold_in(connection, key, now)
            if held is not None and held.session != session:
                raise StudyHeldError(
                    f"{held.author} has this study open; it is free {HOLD_S:.0f} s after that page "
                    "is closed"
                )
            found = Hold(author, session, now + HOLD_S)
            connection.execute(
                "INSERT OR REPLACE INTO holds VALUES (?, ?, ?, ?)",
                (key, author, session, found.until),
            )
        return found

    def release(self, key: str, session: str) -> None:
        """Give a study back, if this page has it."""
        with self._writing() as connection:
            connection.execute("DELETE FROM holds WHERE key = ? AND session = ?", (key, session))

    def holds(self) -> dict[str, Hold]:
        """Studies that are open now, by their keys."""
        with self._connected() as connection:
            rows = connection.execute(
                "SELECT key, author, session, until FROM holds WHERE until > ?", (self._clock(),)
            ).fetchall()
        return {key: Hold(*rest) for key, *rest in rows}

    def begin_correction(
        self,
        key: str,
        author: str,
        file: str,
        *,
        origin: Origin,
        base: str,
        session: str | None = None,
        uid: str = "",
    ) -> Correction:
        """Record that a correction is about to be written to a file that does not exist yet.

        Args:
            key: Key of the study.
            author: Who made it.
            file: The file, relative to the output folder.
            origin: Where it comes from.
            base: SHA-256 of the label map that it began with.
            session: The page that has the study; None if it comes from elsewhere.
            uid: SOPInstanceUID of the object it was read from.

        Raises:
            StudyHeldError: Another page has the study.
        """
        author, now = named_author(author), self._clock()
        with self._writing() as connection:
            if session is not None:
                _require_hold(connection, key, session, now)
            cursor = connection.execute(
                "INSERT INTO corrections (key, author, made, file, origin, base, uid) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (key, author, now, file, origin, base, uid),
            )
            number = int(cursor.lastrowid or 0)
        return Correction(number, key, author, now, file, None, origin, base, uid)

    def finish_correction(self, number: int, sha256: str) -> None:
        """Record that a correction is on disk."""
        with self._writing() as connection:
            connection.execute("UPDATE corrections SET sha256 = ? WHERE id = ?", (sha256, number))

    def corrections(self, key: str | None = None, *, unfinished: bool = False) -> list[Correction]:
        """Corrections that are on disk, oldest first.

        Args:
            key: Only those of one study.
            unfinished: Instead those whose end is not recorded.
        """
        with self._connected() as connection:
            rows = connection.execute(
                "SELECT id, key, author, made, file, sha256, origin, base, uid FROM corrections "
                "WHERE (? IS NULL OR key = ?) AND (sha256 IS NULL) = ? ORDER BY id",
                (key, key, unfinished),
            ).fetchall()
        return [Correction(*row) for row in rows]

    def add_opinion(
        self,
        key: str,
        author: str,
        verdict: str,
        comment: str = "",
        *,
        correction: int | None = None,
        session: str | None = None,
    ) -> Opinion:
        """Record an opinion.

        Args:
            key: Key of the study.
            author: Whose it is.
            verdict: `accepted`, `rejected`, or empty for a comment alone.
            comment: In words.
            correction: Number of the correction that it is about; None for the model's result.
            session: The page that has the study; None if it comes from elsewhere.

        Raises:
            StudyHeldError: Another page has the study.
            UsageError: There is no such verdict or correction, or nothing is said.
        """
        author, now = named_author(author), self._clock()
        _require_opinion(verdict, comment)
        with self._writing() as connection:
            if session is not None:
                _require_hold(connection, key, session, now)
            if (
                correction is not None
                and not connection.execute(
                    "SELECT 1 FROM corrections WHERE id = ? AND key = ? AND sha256 IS NOT NULL",
                    (correction, key),
                ).fetchone()
            ):
                raise UsageError(f"this study has no correction {correction}")
            cursor = connection.execute(
                "INSERT INTO opinions (key, author, made, verdict, comment, correction) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (key, author, now, verdict, comment, correction),
            )
            number = int(cursor.lastrowid or 0)
        return Opinion(number, key, author, now, verdict, comment, correction)

    def opinions(self, key: str | None = None) -> list[Opinion]:
        """Opinions, oldest first; of one study, or of all."""
        with self._connected() as connection:
            rows = connection.execute(
                "SELECT id, key, author, made, verdict, comment, correction FROM opinions "
                "WHERE ? IS NULL OR key = ? ORDER BY id",
                (key, key),
            ).fetchall()
        return [Opinion(*row) for row in rows]


def named_author(author: str) -> str:
    """The name of a reviewer without surrounding blanks.

    Raises:
        UsageError: It is empty, too long or has control characters.
    """
    name = author.strip()
    if not name or len(name) > MAX_AUTHOR or not name.isprintable():
        raise UsageError(
            f"the name of a reviewer needs 1 to {MAX_AUTHOR} printable characters, got "
            f"{author!r:.90}"
        )
    return name


def _require_opinion(verdict: str, comment: str) -> None:
    if verdict not in {*VERDICTS, ""}:
        raise UsageError(f"unknown verdict {verdict!r:.40}; known are {', '.join(VERDICTS)}")
    if len(comment) > MAX_COMMENT:
        raise UsageError(f"a comment has at most {MAX_COMMENT} characters, got {len(comment)}")
    if not verdict and not comment.strip():
        raise UsageError("verdict and comment are both empty: give one of them")


def _hold_in(connection: sqlite3.Connection, key: str, now: float) -> Hold | None:
    row = connection.execute(
        "SELECT author, session, until FROM holds WHERE key = ? AND until > ?", (key, now)
    ).fetchone()
    return None if row is None else Hold(*row)


def _require_hold(connection: sqlite3.Connection, key: str, session: str, now: float) -> None:
    held = _hold_in(connection, key, now)
    if held is None or held.session != session:
        who = "nobody" if held is None else held.author
        raise StudyHeldError(
            f"this page does not have the study any more ({who} has): nothing was saved; open it "
            "again when it is free"
        )
