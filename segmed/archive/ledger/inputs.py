"""Inputs and outputs in the ledger: the input of each output, and the names in use.

`places` says what an input is now; `inputs` keeps the inputs of every entry, also after they have
changed. `names` reserves each output name for one entry before anything is written, compared as
file systems compare names that ignore case. `faulty` names the files of a refused input.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from segmed.archive.ledger.tables import FIELDS, NUM_FIELDS, Entry, entry_of
from segmed.archive.study import Study
from segmed.io.output_names import folded

TABLES_SINCE = 4
"""First schema version with these tables."""

_OLDER = "(SELECT key, place, '' AS root, '' AS uids FROM places)"
_TEXT = (
    "coalesce(inputs.root, '') || '/' || coalesce(inputs.place, '') || ' ' || "
    "coalesce(inputs.uids, '') || ' ' || coalesce(output, '') || ' ' || study || ' ' || "
    "studies.key || ' ' || reason || ' ' || coalesce(output_sha256, '')"
)


@dataclass(frozen=True)
class InputOf:
    """An input of an entry.

    Attributes:
        entry: What became of it.
        place: Its location, relative to `root`; empty if unknown.
        root: The folder that was searched; empty for a PACS.
        uids: StudyInstanceUID and SeriesInstanceUIDs; empty for a volume file.
        faulty: Files to fetch again after a refusal, if they are known.
    """

    entry: Entry
    place: str = ""
    root: str = ""
    uids: tuple[str, ...] = ()
    faulty: tuple[str, ...] = ()


def note_input(connection: sqlite3.Connection, study: Study, key: str) -> None:
    """Record that an entry is of an input."""
    connection.execute(
        "INSERT INTO inputs VALUES (?, ?, ?, ?) ON CONFLICT (key, place) DO UPDATE SET "
        "root = excluded.root, uids = excluded.uids",
        (key, study.place, study.root, " ".join(study.uids)),
    )


def note_faulty(connection: sqlite3.Connection, key: str, files: Sequence[str]) -> None:
    """Record the files at fault of a refused input, instead of those known before."""
    connection.execute("DELETE FROM faulty WHERE key = ?", (key,))
    connection.executemany(
        "INSERT OR IGNORE INTO faulty VALUES (?, ?)", [(key, path) for path in files]
    )


def owner_of(connection: sqlite3.Connection, output: str) -> str | None:
    """Key of the entry that an output name is reserved for."""
    row = connection.execute("SELECT key FROM names WHERE folded = ?", (folded(output),)).fetchone()
    return None if row is None else str(row[0])


def reserve(connection: sqlite3.Connection, output: str, key: str) -> None:
    """Reserve an output name for an entry."""
    connection.execute(
        "INSERT OR REPLACE INTO names VALUES (?, ?, ?)", (folded(output), output, key)
    )


def content_of(connection: sqlite3.Connection, key: str) -> str | None:
    """Content hash of an entry."""
    row = connection.execute("SELECT content FROM studies WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def is_outlived(connection: sqlite3.Connection, owner: str, study: Study, key: str) -> bool:
    """True if the result of an entry belongs to an earlier state of the same input, and only there.

    Args:
        connection: A connection to the ledger.
        owner: Key of the entry.
        study: The input in its present state.
        key: Key of the input in its present state, as it was met.
    """
    content = content_of(connection, owner)
    if content is None or content == study.content:
        return content is None
    rows = connection.execute(
        "SELECT versions.identity, versions.last FROM versions JOIN studies "
        "ON studies.key = versions.key WHERE studies.content = ?",
        (content,),
    ).fetchall()
    if not rows:
        state = connection.execute("SELECT state FROM studies WHERE key = ?", (owner,)).fetchone()
        return bool(state[0] == "replaced")
    met = connection.execute(
        "SELECT first FROM versions WHERE identity = ? AND key = ?", (study.identity, key)
    ).fetchone()
    if met is None:
        return False
    return all(identity == study.identity and last < met[0] for identity, last in rows)


def inputs_with(
    connection: sqlite3.Connection, texts: Sequence[Sequence[str]]
) -> Iterator[InputOf]:
    """Entries with their inputs, in the order of the places.

    Args:
        connection: A connection to a ledger of any version.
        texts: Only those whose path, UIDs, output, study, key or reason contains one text of each
            of these groups, in upper or lower case.
    """
    is_older = int(connection.execute("PRAGMA user_version").fetchone()[0]) < TABLES_SINCE
    table = _OLDER if is_older else "inputs"
    contains = f"instr(lower({_TEXT}), lower(?)) > 0"
    groups = [" OR ".join([contains] * len(group)) for group in texts]
    where = " AND ".join(f"({group})" for group in groups) or "1"
    rows = connection.execute(
        f"SELECT {FIELDS}, inputs.place, inputs.root, inputs.uids FROM studies "  # noqa: S608 - constant names
        f"LEFT JOIN {table} AS inputs ON inputs.key = studies.key WHERE {where} "
        "ORDER BY inputs.root, inputs.place, updated",
        [text for group in texts for text in group],
    )
    for row in rows:
        place, root, uids = (value or "" for value in row[NUM_FIELDS:])
        entry = entry_of(row[:NUM_FIELDS])
        faulty = () if is_older or not entry.reason else _faulty(connection, entry.key)
        yield InputOf(entry, place, root, tuple(uids.split()), faulty)


def _faulty(connection: sqlite3.Connection, key: str) -> tuple[str, ...]:
    rows = connection.execute("SELECT path FROM faulty WHERE key = ? ORDER BY path", (key,))
    return tuple(row[0] for row in rows)
