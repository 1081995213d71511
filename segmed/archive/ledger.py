"""The ledger: what became of every study, kept in SQLite so that no kill loses or repeats one."""

from __future__ import annotations

import fcntl
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from segmed.archive.ledger_tables import (
    FIELDS,
    SCHEMA_VERSION,
    STATES,
    TABLES,
    Entry,
    State,
    entry_of,
)
from segmed.archive.study import NotImage, Study
from segmed.errors import ServiceError, UsageError

__all__ = ["Entry", "Ledger", "State"]

ROWS_AT_ONCE = 256
"""Entries in memory at a time."""

CHECKPOINT_PAGES = 4000
"""Pages of the write-ahead log (16 MB) after which it is folded into the file, at a sync's cost."""


class Ledger:
    """The ledger of one output folder. One process writes at a time; readers may look on.

    Args:
        path: The SQLite file; made if absent.
        writer: Take the writer's lock. Readers leave it alone.

    Raises:
        UsageError: Another run writes this ledger, the file is of another schema version, or a
            reader finds no ledger.
    """

    def __init__(self, path: Path, *, writer: bool = True) -> None:
        self.path = path
        self._lock: TextIO | None = None
        if writer:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(path)
        elif not path.exists():
            raise UsageError(f"no ledger {path}: has an archive been segmented into this folder?")
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(writer)
        except sqlite3.DatabaseError as error:
            self.close()
            raise ServiceError(
                f"the ledger {path.name} cannot be opened ({error}); is the disk full, or is the "
                "file no ledger?"
            ) from error
        except UsageError:
            self.close()
            raise

    def _prepare(self, writer: bool) -> None:
        self._connection.execute("PRAGMA busy_timeout = 10000")
        if writer:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and writer:
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
        elif version != SCHEMA_VERSION:
            raise UsageError(
                f"{self.path.name} has schema version {version}, this segmed reads "
                f"{SCHEMA_VERSION}; use the segmed that wrote it, or another output folder"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and give the lock back."""
        self._connection.close()
        if self._lock is not None:
            self._lock.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise ServiceError(
                f"the ledger {self.path.name} cannot be written ({error}); mend that and start "
                "again: nothing that is done is lost"
            ) from error

    def begin_run(self, package: str) -> int:
        """Open a run: what a killed run left `running` is `pending` again.

        Args:
            package: Hash of the model package of this run.

        Returns:
            The run's number.
        """
        with self._transaction() as connection:
            connection.execute("UPDATE studies SET state = 'pending' WHERE state = 'running'")
            cursor = connection.execute(
                "INSERT INTO runs (package, started) VALUES (?, ?)", (package, time.time())
            )
            return int(cursor.lastrowid or 0)

    def end_run(self, run: int) -> None:
        """Note that a run came to its end."""
        with self._transaction() as connection:
            connection.execute("UPDATE runs SET ended = ? WHERE run = ?", (time.time(), run))

    def meet(self, study: Study, key: str, package: str, *, settings: str, run: int) -> Entry:
        """Note that a run met a study; a new one is `pending`.

        Args:
            study: The study.
            key: Its key with this model.
            package: Hash of the model package.
            settings: What changes the output besides content and package.
            run: Number of the run.

        Returns:
            The study's entry as it stands.
        """
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO studies (key, content, package, settings, study, form, state, run, "
                "updated) VALUES (?, ?, ?, ?, ?, ?, 'pending', ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET run = excluded.run",
                (key, study.content, package, settings, study.name, study.form, run, time.time()),
            )
            connection.execute(
                "INSERT INTO places VALUES (?, ?, ?, ?) ON CONFLICT (place) DO UPDATE SET "
                "key = excluded.key, files = excluded.files, run = excluded.run",
                (study.place, key, len(study.files), run),
            )
        return self.entry(key)

    def note_not_image(self, item: NotImage, *, run: int) -> None:
        """Note a file that holds no image."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO not_images VALUES (?, ?, ?)", (item.place, item.why, run)
            )

    def knows(self, key: str) -> bool:
        """Whether there is an entry of a key."""
        found = self._connection.execute("SELECT 1 FROM studies WHERE key = ?", (key,))
        return found.fetchone() is not None

    def entry(self, key: str) -> Entry:
        """The entry of a key.

        Raises:
            KeyError: The ledger does not know the key.
        """
        row = self._connection.execute(
            f"SELECT {FIELDS} FROM studies WHERE key = ?",  # noqa: S608 - constant columns
            (key,),
        ).fetchone()
        if row is None:
            raise KeyError(key)
        return entry_of(row)

    def done_by_another(self, content: str, package: str, settings: str) -> Entry | None:
        """The newest good end of the same input under another model package, if there is one."""
        row = self._connection.execute(
            f"SELECT {FIELDS} FROM studies WHERE content = ? AND settings = ? AND "  # noqa: S608
            "package <> ? AND state = 'done' ORDER BY updated DESC LIMIT 1",
            (content, settings, package),
        ).fetchone()
        return None if row is None else entry_of(row)

    def start(self, key: str, *, run: int) -> None:
        """Note that work on a study begins."""
        self._set(key, "running", attempts="attempts + 1", worked=run, reason="", message="")

    def note_output(
        self,
        key: str,
        output: str,
        sha256: str,
        *,
        seconds: float,
        measures: dict[str, Any],
        is_final: bool,
    ) -> None:
        """Note the file that work on a study left.

        Args:
            key: The study's key.
            output: The file, relative to the output folder.
            sha256: Its hex digest.
            seconds: Time it took, in s.
            measures: What was measured, JSON values.
            is_final: This is the good end; else the output is still to be delivered.
        """
        self._set(
            key,
            "done" if is_final else "running",
            output=output,
            output_sha256=sha256,
            seconds=seconds,
            measures=json.dumps(measures, sort_keys=True),
            reason="",
            message="",
        )

    def finish(self, key: str, *, delivered: str) -> None:
        """Note a good end, and the address that the output was delivered to."""
        self._set(key, "done", delivered=delivered, reason="", message="")

    def end_badly(self, key: str, reason: str, message: str, *, quarantine: bool) -> None:
        """Note a bad end.

        Args:
            key: The study's key.
            reason: Code.
            message: One line.
            quarantine: The data are bad, and the study is not tried again unless asked; else the
                surroundings are, and the next run tries again.
        """
        state: State = "quarantined" if quarantine else "failed"
        self._set(key, state, reason=reason, message=message)

    def reopen(self, key: str) -> None:
        """Make one study pending."""
        self._set(key, "pending", reason="", message="")

    def reopen_all(self, states: tuple[State, ...]) -> int:
        """Make all studies in the given states pending; returns how many."""
        with self._transaction() as connection:
            cursors = [
                connection.execute(
                    "UPDATE studies SET state = 'pending', reason = '', message = '', "
                    "attempts = 0 WHERE state = ?",
                    (state,),
                )
                for state in states
            ]
            return sum(cursor.rowcount for cursor in cursors)

    def _set(
        self, key: str, state: State, *, attempts: str = "attempts", **columns: object
    ) -> None:
        names = "".join(f", {name} = ?" for name in columns)
        with self._transaction() as connection:
            connection.execute(
                f"UPDATE studies SET state = ?, updated = ?, attempts = {attempts}{names} "  # noqa: S608
                "WHERE key = ?",
                (state, time.time(), *columns.values(), key),
            )

    def entries(self, *, state: State | None = None, package: str | None = None) -> Iterator[Entry]:
        """All entries in order of their keys, a few hundred in memory at a time.

        The ledger may be written between two entries.

        Args:
            state: Only those in this state.
            package: Only those of this model package.
        """
        last = ""
        while True:
            rows = self._connection.execute(
                f"SELECT {FIELDS} FROM studies WHERE key > ? AND (? IS NULL OR state = ?) "  # noqa: S608
                "AND (? IS NULL OR package = ?) ORDER BY key LIMIT ?",
                (last, state, state, package, package, ROWS_AT_ONCE),
            ).fetchall()
            if not rows:
                return
            yield from map(entry_of, rows)
            last = rows[-1][0]

    def met(self, run: int) -> Iterator[tuple[str, Entry]]:
        """Place and entry of every study that a run met, in order of their places."""
        last = ""
        while True:
            rows = self._connection.execute(
                f"SELECT places.place, {FIELDS} FROM places JOIN studies "  # noqa: S608
                "ON places.key = studies.key WHERE places.run = ? AND places.place > ? "
                "ORDER BY places.place LIMIT ?",
                (run, last, ROWS_AT_ONCE),
            ).fetchall()
            if not rows:
                return
            for row in rows:
                yield row[0], entry_of(row[1:])
            last = rows[-1][0]

    def places(self, key: str) -> tuple[str, ...]:
        """Where the input of a key lies."""
        rows = self._connection.execute(
            "SELECT place FROM places WHERE key = ? ORDER BY place", (key,)
        )
        return tuple(row[0] for row in rows)

    def not_images(self, run: int) -> Iterator[NotImage]:
        """The files without an image that a run met, in order of their places."""
        rows = self._connection.execute(
            "SELECT place, why FROM not_images WHERE run = ? ORDER BY place", (run,)
        )
        for place, why in rows:
            yield NotImage(place, why)

    def last_run(self) -> int | None:
        """Number of the newest run."""
        row = self._connection.execute("SELECT max(run) FROM runs").fetchone()
        return None if row[0] is None else int(row[0])

    def counts(self) -> dict[State, int]:
        """How many studies are in each state."""
        found = dict(
            self._connection.execute(
                "SELECT state, count(*) FROM studies GROUP BY state"
            ).fetchall()
        )
        return {state: int(found.get(state, 0)) for state in STATES}

    def files_met(self, run: int) -> tuple[int, int]:
        """Files of studies, and files that are no images, met by a run."""
        in_studies = self._connection.execute(
            "SELECT coalesce(sum(files), 0) FROM places WHERE run = ?", (run,)
        ).fetchone()[0]
        others = self._connection.execute(
            "SELECT count(*) FROM not_images WHERE run = ?", (run,)
        ).fetchone()[0]
        return int(in_studies), int(others)


def _locked(path: Path) -> TextIO:
    """The open lock file of a ledger; the system drops the lock when its holder dies."""
    lock = path.with_name(path.name + ".lock").open("a", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise UsageError(
            f"another run is writing {path.name}; wait for it, or end it, and start again"
        ) from error
    return lock
