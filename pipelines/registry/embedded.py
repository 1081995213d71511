"""The embedded registry read as the SQLite file that it is: MLflow alone takes two CPU seconds.

Only looked at, never written, and only where the file has the columns that are read here; whatever
differs is left to `pipelines.registry.versions`, which queries MLflow.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import quote

from pipelines.registry.reference import Version, is_lock, version_record
from pipelines.tracking.database import sqlite_path

COLUMNS = {
    "model_versions": {"name", "version", "description", "run_id", "creation_time"},
    "model_version_tags": {"name", "version", "key", "value"},
    "registered_models": {"name"},
    "registered_model_aliases": {"name", "alias", "version"},
}
"""What is read, by table."""


@dataclass(frozen=True)
class _Row:
    """A version with the attributes that MLflow's record of it has."""

    name: str
    version: int
    description: str | None
    run_id: str | None
    creation_timestamp: int | None
    tags: Mapping[str, str]


def registered_versions(uri: str) -> dict[str, list[Version]] | None:
    """Every registered model and its versions, newest first.

    Args:
        uri: Address of the tracking server or database.

    Returns:
        By name, sorted; empty where the file does not exist; None where the registry is not a
        SQLite file, or one of an unknown form: query MLflow.
    """
    path = sqlite_path(uri)
    if path is None:
        return None
    if not path.exists():
        return {}
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
            return _read(database) if _is_known(database) else None
    except sqlite3.Error:  # in use, damaged or no database: MLflow finds the words for it
        return None


def _is_known(database: sqlite3.Connection) -> bool:
    for table, columns in COLUMNS.items():
        rows = database.execute("SELECT name FROM pragma_table_info(?)", (table,))
        if not columns <= {str(name) for (name,) in rows}:
            return False
    spaces = database.execute("SELECT count(*) FROM pragma_table_info('workspaces')").fetchone()
    if not spaces[0]:
        return True
    return int(database.execute("SELECT count(*) FROM workspaces").fetchone()[0]) <= 1


def _read(database: sqlite3.Connection) -> dict[str, list[Version]]:
    names = [name for (name,) in database.execute("SELECT name FROM registered_models")]
    found: dict[str, list[Version]] = {name: [] for name in sorted(names) if not is_lock(name)}
    tags: dict[tuple[str, int], dict[str, str]] = {}
    for name, version, key, value in database.execute(
        "SELECT name, version, key, value FROM model_version_tags"
    ):
        tags.setdefault((name, version), {})[key] = value
    aliases: dict[str, dict[str, str]] = {}
    for name, alias, version in database.execute(
        "SELECT name, alias, version FROM registered_model_aliases"
    ):
        aliases.setdefault(name, {})[alias] = str(version)
    for name, version, words, run_id, made in database.execute(
        "SELECT name, version, description, run_id, creation_time FROM model_versions"
        " WHERE current_stage IS NULL OR current_stage != 'Deleted_Internal' ORDER BY version DESC"
    ):
        if name in found:
            row = _Row(name, version, words, run_id, made, tags.get((name, version), {}))
            found[name].append(version_record(row, aliases.get(name)))
    return found
