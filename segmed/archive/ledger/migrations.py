"""Conversion of the ledgers of older versions to today's tables, step by step, with a copy kept.

A step changes tables and names of states only; outcomes stay. Each step is one transaction that
also sets the version, so a kill between two steps leaves a ledger that the next start continues.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

from segmed.archive.ledger.tables import SCHEMA_VERSION, TABLES
from segmed.errors import UsageError
from segmed.io.atomic import whole_file

logger = logging.getLogger(__name__)

_TODAYS_STATE = "iif(state = 'quarantined', 'refused', state)"
"""State of a study in any older version: `refused` was called `quarantined` up to version 4."""

_STUDIES = """
CREATE TABLE studies_again (
    key TEXT PRIMARY KEY, content TEXT NOT NULL, package TEXT NOT NULL, settings TEXT NOT NULL,
    study TEXT NOT NULL, form TEXT NOT NULL, state TEXT NOT NULL CHECK
    (state IN ('pending','running','done','failed',{refused},'replaced')),
    reason TEXT NOT NULL DEFAULT '', message TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0, output TEXT, output_sha256 TEXT, delivered TEXT,
    seconds REAL NOT NULL DEFAULT 0, measures TEXT NOT NULL DEFAULT '{{}}',
    run INTEGER NOT NULL, worked INTEGER NOT NULL DEFAULT 0, updated REAL NOT NULL
) WITHOUT ROWID;
INSERT INTO studies_again SELECT key, content, package, settings, study, form, {state}, reason,
    message, attempts, output, output_sha256, delivered, seconds, measures, run, worked, updated
    FROM studies;
DROP TABLE studies;
ALTER TABLE studies_again RENAME TO studies;
CREATE INDEX studies_by_content ON studies (content, settings);
CREATE INDEX studies_by_state ON studies (state);
"""
"""SQLite cannot change a check: a step that changes the states copies the table."""

_WITH_REPLACED = (
    _STUDIES.format(refused="'quarantined'", state="state")
    + """
CREATE TABLE versions (identity TEXT NOT NULL, key TEXT NOT NULL, first INTEGER NOT NULL,
    last INTEGER NOT NULL, PRIMARY KEY (identity, key)) WITHOUT ROWID;
CREATE INDEX versions_by_key ON versions (key);
"""
)

_WITH_INPUTS = """
CREATE TABLE inputs (key TEXT NOT NULL, place TEXT NOT NULL, root TEXT NOT NULL,
    uids TEXT NOT NULL, PRIMARY KEY (key, place)) WITHOUT ROWID;
INSERT INTO inputs SELECT key, place, '', '' FROM places;
CREATE TABLE names (folded TEXT PRIMARY KEY, output TEXT NOT NULL, key TEXT NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO names SELECT lower(output), output, key FROM studies WHERE output IS NOT NULL;
CREATE TABLE faulty (key TEXT NOT NULL, path TEXT NOT NULL, PRIMARY KEY (key, path)) WITHOUT ROWID;
"""
"""Output names up to here are made of hex digits, which `lower` folds."""

STEPS = {
    1: "ALTER TABLE runs ADD COLUMN segmed TEXT NOT NULL DEFAULT '';",
    2: _WITH_REPLACED,
    3: _WITH_INPUTS,
    4: _STUDIES.format(refused="'refused'", state=_TODAYS_STATE),
}
"""Statements that convert the tables of a version to the next one."""


def settle_schema(connection: sqlite3.Connection, path: Path, *, writer: bool) -> None:
    """Create the tables of a new ledger, or convert those of an older version.

    Readers do not change the file. They read an older ledger through a view with today's states.

    Args:
        connection: An open connection in autocommit mode.
        path: Its file; a copy of an older one is left beside it, `ledger.sqlite.version1`.
        writer: Whether the ledger may be changed.

    Raises:
        UsageError: The ledger is of a later version than this segmed reads, or is empty and this
            is a reader.
    """
    version = _version(connection)
    if version == SCHEMA_VERSION:
        return
    if version in STEPS and not writer:
        read_in_todays_words(connection)
        return
    if version == 0 and writer:
        _in_one(connection, TABLES, SCHEMA_VERSION)
        return
    if version == 0:
        raise UsageError(f"{path.name} is still empty: a run is starting; try again soon")
    if version not in STEPS:
        raise UsageError(
            f"{path.name} has schema version {version}, this segmed reads {min(STEPS)} to "
            f"{SCHEMA_VERSION}; use the segmed that wrote it, or another output folder"
        )
    copy = _keep_copy(connection, path, version)
    for step in range(version, SCHEMA_VERSION):
        _in_one(connection, STEPS[step], step + 1)
    logger.warning(
        "%s was brought from schema version %d to %d; the old one is kept as %s",
        path.name,
        version,
        SCHEMA_VERSION,
        copy.name,
    )


def read_in_todays_words(connection: sqlite3.Connection) -> None:
    """Show the studies of an older ledger with today's states, in this connection alone.

    Nothing is written: a temporary view hides the table. A ledger of today stays as it is.

    Args:
        connection: An open connection, which may be read-only.
    """
    if _version(connection) in STEPS:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(studies)")]
        shown = ", ".join(f"{_TODAYS_STATE} AS state" if c == "state" else c for c in columns)
        connection.execute(f"CREATE TEMP VIEW studies AS SELECT {shown} FROM main.studies")  # noqa: S608 - columns of our own tables


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _in_one(connection: sqlite3.Connection, statements: str, version: int) -> None:
    """Change tables and version in one transaction."""
    try:
        connection.executescript(
            f"BEGIN IMMEDIATE; {statements} PRAGMA user_version = {version}; COMMIT;"
        )
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _keep_copy(connection: sqlite3.Connection, path: Path, version: int) -> Path:
    """Copy the whole ledger by SQLite; an existing copy is of an earlier attempt and is kept."""
    copy = path.with_name(f"{path.name}.version{version}")
    if not copy.exists():
        with whole_file(copy) as draft:
            with closing(sqlite3.connect(draft)) as target:
                connection.backup(target)
            draft.chmod(path.stat().st_mode & 0o777)
    return copy
