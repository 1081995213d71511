"""The ledger's file: one writer at a time, and changes that are applied together or not at all."""

from __future__ import annotations

import fcntl
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TextIO

from segmed.archive.ledger.migrations import settle_schema
from segmed.errors import ServiceError, UsageError
from segmed.one_line import OneLine

LEDGER_FILE = "ledger.sqlite"
"""Name of the ledger in the output folder of an archive."""

CHECKPOINT_PAGES = 4000
"""Pages of the write-ahead log (16 MB) after which it is folded into the file, at a sync's cost."""


LONGEST_OPEN_S = 0.5
"""Longest time for which readers do not see what is in hand, in s."""


class LedgerFile(OneLine):
    """An SQLite file that one process writes at a time.

    Args:
        path: The file; made if absent.
        writer: Take the writer's lock. Readers leave it alone.

    Raises:
        UsageError: Another run writes this ledger, the file is of another schema version, or a
            reader finds no ledger.
    """

    def __init__(self, path: Path, *, writer: bool = True) -> None:
        self.path = path
        self.writer = writer
        self._lock: TextIO | None = None
        self._opened = 0.0
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
        settle_schema(self._connection, self.path, writer=writer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, with all that was noted, and give the lock back."""
        try:
            self.commit()
        finally:
            self._connection.close()
            self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def commit(self) -> None:
        """Put on disk what only waits for the next write.

        Raises:
            ServiceError: The disk is full, or gone.
        """
        if self._connection.in_transaction:
            with self._transaction():
                pass

    @contextmanager
    def _transaction(self, *, can_wait: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction, together with the changes that waited for it."""
        connection = self._connection
        try:
            if not connection.in_transaction:
                connection.execute("BEGIN IMMEDIATE")
                self._opened = time.monotonic()
            yield connection
            if not can_wait or time.monotonic() - self._opened > LONGEST_OPEN_S:
                connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:  # a full disk has ended it already
                connection.execute("ROLLBACK")
            if not isinstance(error, sqlite3.OperationalError):
                raise
            raise ServiceError(
                f"the ledger {self.path.name} cannot be written ({error}); repair this and "
                "start again: no completed study is lost"
            ) from error


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
