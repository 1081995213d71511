"""Runs of an archive in its ledger: their times, and the studies that a dead one left in hand."""

from __future__ import annotations

import sqlite3
import time

from segmed.archive.ledger.file import LedgerFile
from segmed.version import __version__

INTERRUPTED = "interrupted"
"""Reason of a pending study that was in hand when the process of a run died."""


class RunLedger(LedgerFile):
    """A ledger file as runs see it."""

    _rounds = (0, 0)

    def begin_run(self, package: str) -> int:
        """Open a run: what a killed run left `running` is `pending` again, and suspect.

        Args:
            package: Hash of the model package of this run.

        Returns:
            The run's number.
        """
        with self._transaction() as connection:
            connection.execute(
                "UPDATE studies SET state = 'pending', reason = ?, message = ? "
                "WHERE state = 'running'",
                (INTERRUPTED, "the process that worked on it died"),
            )
            return _number(connection, package)

    def begin_round(self, package: str, *, is_first: bool = False) -> int:
        """Open a further run of this process; what is in hand stays in hand.

        It counts with the earlier ones up to the last that was ended, see `first_run_of`.

        Args:
            package: Hash of the model package.
            is_first: It begins a series of rounds, instead of continuing one.

        Returns:
            The run's number.
        """
        first = self.first_round_of(self.last_run() or 0)
        with self._transaction(can_wait=True) as connection:
            number = _number(connection, package)
        self._rounds = (number if is_first else first, number)
        return number

    def first_round_of(self, run: int) -> int:
        """First of the rounds that `begin_round` of this object counted up to a run, or the run."""
        first, last = self._rounds
        return first if run == last else run

    def suspects(self) -> frozenset[str]:
        """Keys of studies that were in hand when a run's process died, and were not ended since."""
        rows = self._connection.execute(
            "SELECT key FROM studies WHERE state = 'pending' AND reason = ?", (INTERRUPTED,)
        )
        return frozenset(row[0] for row in rows)

    def end_run(self, run: int) -> None:
        """Note that a run came to its end."""
        with self._transaction() as connection:
            connection.execute("UPDATE runs SET ended = ? WHERE run = ?", (time.time(), run))

    def started(self, run: int) -> float:
        """Start of a run in s since 1970; 0 if the run does not exist."""
        row = self._connection.execute("SELECT started FROM runs WHERE run = ?", (run,)).fetchone()
        return 0.0 if row is None else float(row[0])

    def last_run(self) -> int | None:
        """Number of the newest run."""
        row = self._connection.execute("SELECT max(run) FROM runs").fetchone()
        return None if row[0] is None else int(row[0])

    def first_run_of(self, run: int) -> int:
        """First of the runs that were cut off before this one and that it continued, or itself."""
        row = self._connection.execute(
            "SELECT coalesce(max(run), 0) FROM runs WHERE run < ? AND ended IS NOT NULL", (run,)
        ).fetchone()
        return int(row[0]) + 1

    def judged_by_run(self, package: str, *, after: int, until: int) -> list[tuple[int, int]]:
        """Number of studies that each run segmented or refused, the newest run first.

        Args:
            package: Hash of the model package; studies of others do not count.
            after: Only runs after this one.
            until: Only runs up to this one.

        Returns:
            Pairs of a run that has such studies and their number.
        """
        rows = self._connection.execute(
            "SELECT worked, count(*) FROM studies WHERE package = ? AND worked > ? "
            "AND worked <= ? AND state IN ('done', 'refused') GROUP BY worked ORDER BY worked DESC",
            (package, after, until),
        )
        return [(int(run), int(number)) for run, number in rows]


def _number(connection: sqlite3.Connection, package: str) -> int:
    """Number of a new run."""
    cursor = connection.execute(
        "INSERT INTO runs (package, started, segmed) VALUES (?, ?, ?)",
        (package, time.time(), __version__),
    )
    return int(cursor.lastrowid or 0)
