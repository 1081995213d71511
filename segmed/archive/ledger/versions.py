"""Versions of one input in the ledger: a result of an earlier version is replaced, not doubled.

An input has an identity that stays while its content changes: the UIDs of a DICOM series, the place
of a volume file. The ledger records under which keys an identity was met, and when. A key replaces
another one of the same identity and other content if it was first met after the other one was last
met: two contents that are met in one run are two inputs, and neither replaces the other.
"""

from __future__ import annotations

import json
import sqlite3
import time
from typing import Any

from segmed.archive.ledger.tables import FIELDS, Entry, entry_of

REPLACES = "replaces the result of an earlier state of this input"
REPLACES_DELIVERED = (
    f"{REPLACES}, which was also delivered: remove it there, no standard lets us do that"
)
REPLACES_WITHDRAWN = f"{REPLACES}, which was also delivered and is removed there"

REPLACED_BY = "by the result of study "
"""Message of a replaced entry, before the name of the study whose result replaces it."""

_EARLIER = """
SELECT DISTINCT earlier.key FROM versions AS newer
JOIN versions AS earlier ON earlier.identity = newer.identity AND earlier.last < newer.first
JOIN studies AS old ON old.key = earlier.key JOIN studies AS new ON new.key = newer.key
WHERE newer.key = ? AND old.content <> new.content AND (new.state = 'done' OR old.output IS NULL)
"""

_PREDECESSORS = f"""
SELECT {FIELDS} FROM studies WHERE key IN (
    SELECT earlier.key FROM versions AS newer
    JOIN versions AS earlier ON earlier.identity = newer.identity AND earlier.last < newer.first
    WHERE newer.key = :key AND NOT EXISTS (
        SELECT 1 FROM versions AS other WHERE other.key = earlier.key AND NOT EXISTS (
            SELECT 1 FROM versions AS later WHERE later.key = :key
            AND later.identity = other.identity AND other.last < later.first))
) AND output IS NOT NULL AND content <> (SELECT content FROM studies WHERE key = :key)
UNION SELECT {FIELDS} FROM studies WHERE state = 'replaced' AND message = :replaced
"""  # noqa: S608 - constant columns
"""The first condition is that of `replace_earlier`: an entry that another input has stays."""

_OUTDATED = """
SELECT earlier.key FROM versions AS newer
JOIN versions AS earlier ON earlier.identity = newer.identity AND earlier.last < newer.first
JOIN studies AS old ON old.key = earlier.key JOIN studies AS new ON new.key = newer.key
WHERE old.state = 'done' AND new.state = 'refused' AND old.content <> new.content
"""

_LEAVE = """
DELETE FROM versions WHERE key = ? AND EXISTS (
    SELECT 1 FROM versions AS newer WHERE newer.key = ? AND newer.identity = versions.identity
    AND versions.last < newer.first)
"""


def note_version(connection: sqlite3.Connection, identity: str, key: str, run: int) -> None:
    """Record that a run met an input under a key.

    A key that comes back after a run that met the input under another one counts as first met now.
    Places of content that only this input had are dropped: no input has it any more.
    """
    connection.execute(
        "INSERT INTO versions VALUES (?, ?, ?, ?) ON CONFLICT (identity, key) DO UPDATE SET "
        "last = excluded.last, first = CASE WHEN EXISTS (SELECT 1 FROM versions AS other "
        "WHERE other.identity = versions.identity AND other.last > versions.last) "
        "THEN excluded.first ELSE versions.first END",
        (identity, key, run, run),
    )
    connection.execute(
        "DELETE FROM places WHERE key IN (SELECT earlier.key FROM versions AS earlier "
        "JOIN studies AS old ON old.key = earlier.key JOIN studies AS new ON new.key = ? "
        "WHERE earlier.identity = ? AND earlier.last < ? AND old.content <> new.content "
        "AND NOT EXISTS (SELECT 1 FROM versions AS other WHERE other.key = earlier.key "
        "AND other.identity <> earlier.identity))",
        (key, identity, run),
    )


def replace_earlier(connection: sqlite3.Connection, key: str) -> list[Entry]:
    """Mark the entries that a key replaces; an entry with an output only once the key is done.

    An entry that another input still has (a copy at another place) stays.

    Args:
        connection: A connection within a transaction.
        key: The key that an input has now.

    Returns:
        The replaced entries that have an output, as they were.
    """
    replaced = []
    for (old,) in connection.execute(_EARLIER, (key,)).fetchall():
        connection.execute(_LEAVE, (old, key))
        if connection.execute("SELECT 1 FROM versions WHERE key = ?", (old,)).fetchone():
            continue
        row = connection.execute(
            f"SELECT {FIELDS} FROM studies WHERE key = ?",  # noqa: S608 - constant columns
            (old,),
        ).fetchone()
        entry = entry_of(row)
        connection.execute(
            "UPDATE studies SET state = 'replaced', reason = 'replaced', message = ?, "
            "updated = ? WHERE key = ?",
            (f"{REPLACED_BY}{_name(connection, key)}", time.time(), old),
        )
        if entry.output is not None:
            replaced.append(entry)
    if replaced:
        is_delivered = any(entry.delivered for entry in replaced)
        add_note(connection, key, REPLACES_DELIVERED if is_delivered else REPLACES)
    return replaced


def predecessors(connection: sqlite3.Connection, key: str) -> list[Entry]:
    """Entries whose results a key replaces, or has replaced; those of the last run first.

    Args:
        connection: A connection.
        key: The key, whose result may not be booked yet.
    """
    words = {"key": key, "replaced": f"{REPLACED_BY}{_name(connection, key)}"}
    found = [entry_of(row) for row in connection.execute(_PREDECESSORS, words).fetchall()]
    return sorted(found, key=lambda entry: entry.worked, reverse=True)


def successors(connection: sqlite3.Connection, key: str) -> list[dict[str, Any]]:
    """Measures of the entries by which a replaced entry was replaced."""
    (message,) = connection.execute("SELECT message FROM studies WHERE key = ?", (key,)).fetchone()
    rows = connection.execute(
        "SELECT measures FROM studies WHERE study = ? AND key <> ?",
        (message.removeprefix(REPLACED_BY), key),
    )
    return [json.loads(row[0]) for row in rows]


def outdated(connection: sqlite3.Connection, by: str | None = None) -> frozenset[str]:
    """Keys of results whose input was met later with other content, which was refused.

    Args:
        connection: A connection.
        by: Only those whose input has this key now.
    """
    which, values = ("", ()) if by is None else (" AND newer.key = ?", (by,))
    rows = connection.execute(_OUTDATED + which, values)
    return frozenset(row[0] for row in rows)


def add_note(connection: sqlite3.Connection, key: str, note: str) -> None:
    """Add a remark to an entry's measures, once."""
    row = connection.execute("SELECT measures FROM studies WHERE key = ?", (key,)).fetchone()
    measures = json.loads(row[0])
    if note not in measures.setdefault("notes", []):
        measures["notes"].append(note)
        connection.execute(
            "UPDATE studies SET measures = ? WHERE key = ?",
            (json.dumps(measures, sort_keys=True), key),
        )


def note_delivery(connection: sqlite3.Connection, key: str, address: str | None) -> None:
    """Note where the result of a replaced entry still is; without an address it is removed there.

    The result that replaces it says so once none is left.
    """
    connection.execute("UPDATE studies SET delivered = ? WHERE key = ?", (address, key))
    if address is not None:
        return
    (message,) = connection.execute("SELECT message FROM studies WHERE key = ?", (key,)).fetchone()
    left = "SELECT 1 FROM studies WHERE state = 'replaced' AND message = ? AND delivered <> ''"
    if connection.execute(left, (message,)).fetchone() is None:
        name = message.removeprefix(REPLACED_BY)
        newer = connection.execute("SELECT key FROM studies WHERE study = ?", (name,)).fetchall()
        for (one,) in newer:
            note_withdrawn(connection, one)


def note_withdrawn(connection: sqlite3.Connection, key: str) -> None:
    """Change the remark on a delivered result that a key replaces: it is removed there."""
    row = connection.execute("SELECT measures FROM studies WHERE key = ?", (key,)).fetchone()
    measures = json.loads(row[0])
    notes = measures.get("notes", [])
    measures["notes"] = [REPLACES_WITHDRAWN if n == REPLACES_DELIVERED else n for n in notes]
    connection.execute(
        "UPDATE studies SET measures = ? WHERE key = ?",
        (json.dumps(measures, sort_keys=True), key),
    )


def _name(connection: sqlite3.Connection, key: str) -> str:
    row = connection.execute("SELECT study FROM studies WHERE key = ?", (key,)).fetchone()
    return str(row[0])
