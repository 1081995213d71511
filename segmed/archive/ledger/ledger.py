"""The ledger: state of every study, kept in SQLite so that no kill loses or repeats one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

from segmed.archive.ledger.inputs import (
    InputOf,
    content_of,
    inputs_with,
    is_outlived,
    note_faulty,
    note_input,
    owner_of,
    reserve,
)
from segmed.archive.ledger.runs import RunLedger
from segmed.archive.ledger.tables import FIELDS, STATES, Entry, State, entry_of
from segmed.archive.ledger.versions import (
    note_delivery,
    note_version,
    outdated,
    predecessors,
    replace_earlier,
    successors,
)
from segmed.archive.study import NotImage, Study

__all__ = ["Entry", "Ledger", "State"]

ROWS_AT_ONCE = 256
"""Entries in memory at a time."""


class Ledger(RunLedger):
    """The ledger of one output folder. One process writes at a time; readers may look on.

    That work on a study began, and how it ended, is on disk when the call returns. That it was met
    joins the next such write: a run killed in between would list it again in any case.

    Args:
        path: The SQLite file; made if absent.
        writer: Take the writer's lock. Readers leave it alone.

    Raises:
        UsageError: Another run writes this ledger, the file is of another schema version, or a
            reader finds no ledger.
    """

    def release(self, key: str) -> None:
        """Note that work on a study is given up without an end, since the run is to stop."""
        if self.entry(key).state == "running":
            self.reopen(key)

    def enter(self, study: Study, key: str, package: str, *, settings: str, run: int) -> Entry:
        """Enter a study of a run; a new one is `pending`, and so is one that was replaced.

        Args:
            study: The study.
            key: Its key with this model.
            package: Hash of the model package.
            settings: What changes the output besides content and package.
            run: Number of the run.

        Returns:
            The study's current entry.
        """
        with self._transaction(can_wait=True) as connection:
            connection.execute(
                "INSERT INTO studies (key, content, package, settings, study, form, state, run, "
                "updated) VALUES (?, ?, ?, ?, ?, ?, 'pending', ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET run = excluded.run, "
                "state = iif(state = 'replaced', 'pending', state), "
                "reason = iif(state = 'replaced', '', reason), "
                "message = iif(state = 'replaced', '', message)",
                (key, study.content, package, settings, study.name, study.form, run, time.time()),
            )
            connection.execute(
                "INSERT INTO places VALUES (?, ?, ?, ?) ON CONFLICT (place) DO UPDATE SET "
                "key = excluded.key, files = excluded.files, run = excluded.run",
                (study.place, key, len(study.files), run),
            )
            note_input(connection, study, key)
            if study.identity:
                note_version(connection, study.identity, key, run)
        return self.entry(key)

    def replace_earlier(self, key: str) -> list[Entry]:
        """Mark what an input's present key replaces; see `segmed.archive.ledger.versions`.

        Returns:
            The replaced entries that have an output, as they were.
        """
        with self._transaction(can_wait=True) as connection:
            return replace_earlier(connection, key)

    def predecessors(self, key: str) -> list[Entry]:
        """Entries whose results a key replaces; see `segmed.archive.ledger.versions`."""
        return predecessors(self._connection, key)

    def successors(self, key: str) -> list[dict[str, Any]]:
        """Measures of the entries by which a replaced entry was replaced."""
        return successors(self._connection, key)

    def note_delivery(self, key: str, address: str | None) -> None:
        """Note where a replaced result still is; None: it is removed where it was sent."""
        with self._transaction(can_wait=True) as connection:
            note_delivery(connection, key, address)

    def is_delivered_otherwise(self, address: str, key: str) -> bool:
        """Return whether an entry that was not replaced has the address of another key's result."""
        row = self._connection.execute(
            "SELECT 1 FROM studies WHERE delivered = ? AND key <> ? AND state <> 'replaced'",
            (address, key),
        ).fetchone()
        return row is not None

    def forget_output(self, key: str) -> None:
        """Note that the output of a replaced entry is gone."""
        with self._transaction(can_wait=True) as connection:
            connection.execute("UPDATE studies SET output = NULL WHERE key = ?", (key,))

    def owner_of(self, output: str) -> str | None:
        """Key of the entry that an output name is reserved for."""
        return owner_of(self._connection, output)

    def reserve_output(self, output: str, key: str) -> None:
        """Reserve an output name, on disk when the call returns: the file may appear any time."""
        with self._transaction() as connection:
            reserve(connection, output, key)

    def content_of(self, key: str) -> str | None:
        """Content hash of an entry; None for an unknown key."""
        return content_of(self._connection, key)

    def is_outlived(self, owner: str, study: Study, key: str) -> bool:
        """Return whether an entry is of an earlier state of an input; see `ledger.inputs`."""
        return is_outlived(self._connection, owner, study, key)

    def inputs_with(self, texts: Sequence[Sequence[str]] = ()) -> Iterator[InputOf]:
        """Entries with their inputs; see `segmed.archive.ledger.inputs`."""
        return inputs_with(self._connection, texts)

    def is_shared(self, output: str, key: str) -> bool:
        """Return whether an entry that was not replaced has the output of another key."""
        row = self._connection.execute(
            "SELECT 1 FROM studies WHERE output = ? AND key <> ? AND state <> 'replaced'",
            (output, key),
        ).fetchone()
        return row is not None

    def outdated(self, *, by: str | None = None) -> frozenset[str]:
        """Keys of results whose input was met later with other content, which was refused.

        Args:
            by: Only those whose input has this key now.
        """
        return outdated(self._connection, by)

    def note_not_image(self, item: NotImage, *, run: int) -> None:
        """Note a file without an image."""
        with self._transaction(can_wait=True) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO not_images VALUES (?, ?, ?)", (item.place, item.why, run)
            )

    def has(self, key: str) -> bool:
        """Return whether there is an entry of a key."""
        found = self._connection.execute("SELECT 1 FROM studies WHERE key = ?", (key,))
        return found.fetchone() is not None

    def entry(self, key: str) -> Entry:
        """The entry of a key.

        Raises:
            KeyError: The key has no entry.
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
            f"SELECT {FIELDS} FROM studies INDEXED BY studies_by_content "  # noqa: S608 - constant names
            "WHERE content = ? AND settings = ? AND package <> ? AND state = 'done' "
            "ORDER BY updated DESC LIMIT 1",
            (content, settings, package),
        ).fetchone()
        return None if row is None else entry_of(row)

    def start(self, key: str, *, run: int) -> None:
        """Note that work on a study begins; on disk when this returns, should it kill us."""
        self._set(
            key,
            "running",
            attempts="attempts + 1",
            worked=run,
            reason="",
            message="",
        )

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
        """Record the end of a study, and the address that the output was delivered to."""
        self._set(key, "done", delivered=delivered, reason="", message="")

    def record_failure(
        self,
        key: str,
        reason: str,
        message: str,
        *,
        refused: bool,
        run: int | None = None,
        files: Sequence[str] = (),
    ) -> None:
        """Record a refusal or a failure.

        Args:
            key: The study's key.
            reason: Code.
            message: One line.
            refused: The data are bad, and the study is not tried again unless asked; else the
                surroundings are, and the next run tries again.
            run: The run that found it out, where no work had begun.
            files: The files at fault, if they are known; they stay in the ledger and the index.
        """
        state: State = "refused" if refused else "failed"
        with self._transaction(can_wait=True) as connection:
            note_faulty(connection, key, files)
        if run is None:
            self._set(key, state, reason=reason, message=message)
        else:
            self._set(key, state, reason=reason, message=message, worked=run)

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
        self,
        key: str,
        state: State,
        *,
        attempts: str = "attempts",
        can_wait: bool = False,
        **columns: object,
    ) -> None:
        names = "".join(f", {name} = ?" for name in columns)
        with self._transaction(can_wait=can_wait) as connection:
            connection.execute(
                f"UPDATE studies SET state = ?, updated = ?, attempts = {attempts}{names} "  # noqa: S608 - constant names
                "WHERE key = ?",
                (state, time.time(), *columns.values(), key),
            )

    def entries(
        self,
        *,
        state: State | None = None,
        package: str | None = None,
        worked: tuple[int, int] | None = None,
    ) -> Iterator[Entry]:
        """All entries in order of their keys, a few hundred in memory at a time.

        The ledger may be written between two entries.

        Args:
            state: Only those in this state.
            package: Only those of this model package.
            worked: Only those that a run from the first to the second of these worked on last.
        """
        last, (start, end) = "", worked or (None, None)
        while True:
            rows = self._connection.execute(
                f"SELECT {FIELDS} FROM studies WHERE key > ? AND (? IS NULL OR state = ?) "  # noqa: S608 - constant names
                "AND (? IS NULL OR package = ?) AND (? IS NULL OR worked BETWEEN ? AND ?) "
                "ORDER BY key LIMIT ?",
                (
                    last,
                    state,
                    state,
                    package,
                    package,
                    start,
                    start,
                    end,
                    ROWS_AT_ONCE,
                ),
            ).fetchall()
            if not rows:
                return
            yield from map(entry_of, rows)
            last = rows[-1][0]

    def met(self, run: int) -> Iterator[tuple[str, Entry]]:
        """Place and entry of every study that a run met, in order of their places.

        Of the last of several rounds, those that any of them met.
        """
        last, first = "", self.first_round_of(run)
        while True:
            rows = self._connection.execute(
                f"SELECT places.place, {FIELDS} FROM places JOIN studies "  # noqa: S608 - constant names
                "ON places.key = studies.key WHERE places.run BETWEEN ? AND ? "
                "AND places.place > ? ORDER BY places.place LIMIT ?",
                (first, run, last, ROWS_AT_ONCE),
            ).fetchall()
            if not rows:
                return
            for row in rows:
                yield row[0], entry_of(row[1:])
            last = rows[-1][0]

    def places(self, key: str) -> tuple[str, ...]:
        """Paths of a key's input."""
        rows = self._connection.execute(
            "SELECT place FROM places WHERE key = ? ORDER BY place", (key,)
        )
        return tuple(row[0] for row in rows)

    def num_places(self, key: str, run: int) -> int:
        """At how many places a run met the content of a key."""
        row = self._connection.execute(
            "SELECT count(*) FROM places WHERE key = ? AND run = ?", (key, run)
        ).fetchone()
        return int(row[0])

    def counts(self) -> dict[State, int]:
        """Number of studies in each state."""
        found = dict(
            self._connection.execute(
                "SELECT state, count(*) FROM studies GROUP BY state"
            ).fetchall()
        )
        return {state: int(found.get(state, 0)) for state in STATES}

    def files_met(self, run: int) -> tuple[int, int]:
        """Files of studies, and files that are not images, met by a run."""
        in_studies = self._connection.execute(
            "SELECT coalesce(sum(files), 0) FROM places WHERE run = ?", (run,)
        ).fetchone()[0]
        others = self._connection.execute(
            "SELECT count(*) FROM not_images WHERE run = ?", (run,)
        ).fetchone()[0]
        return int(in_studies), int(others)
