"""The ledger's tables, and one row of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

SCHEMA_VERSION = 5
"""Version of the tables; `ledger.migrations` converts older ones."""

State = Literal["pending", "running", "done", "failed", "refused", "replaced"]
STATES: tuple[State, ...] = ("pending", "running", "done", "failed", "refused", "replaced")

TABLES = """
CREATE TABLE studies (
    key TEXT PRIMARY KEY, content TEXT NOT NULL, package TEXT NOT NULL, settings TEXT NOT NULL,
    study TEXT NOT NULL, form TEXT NOT NULL, state TEXT NOT NULL CHECK
    (state IN ('pending','running','done','failed','refused','replaced')),
    reason TEXT NOT NULL DEFAULT '', message TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0, output TEXT, output_sha256 TEXT, delivered TEXT,
    seconds REAL NOT NULL DEFAULT 0, measures TEXT NOT NULL DEFAULT '{}',
    run INTEGER NOT NULL, worked INTEGER NOT NULL DEFAULT 0, updated REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX studies_by_content ON studies (content, settings);
CREATE INDEX studies_by_state ON studies (state);
CREATE TABLE places (place TEXT PRIMARY KEY, key TEXT NOT NULL, files INTEGER NOT NULL,
    run INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX places_by_key ON places (key);
CREATE TABLE not_images (place TEXT PRIMARY KEY, why TEXT NOT NULL, run INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE runs (run INTEGER PRIMARY KEY, package TEXT NOT NULL, started REAL NOT NULL,
    ended REAL, segmed TEXT NOT NULL DEFAULT '');
CREATE TABLE versions (identity TEXT NOT NULL, key TEXT NOT NULL, first INTEGER NOT NULL,
    last INTEGER NOT NULL, PRIMARY KEY (identity, key)) WITHOUT ROWID;
CREATE INDEX versions_by_key ON versions (key);
CREATE TABLE inputs (key TEXT NOT NULL, place TEXT NOT NULL, root TEXT NOT NULL,
    uids TEXT NOT NULL, PRIMARY KEY (key, place)) WITHOUT ROWID;
CREATE TABLE names (folded TEXT PRIMARY KEY, output TEXT NOT NULL, key TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE faulty (key TEXT NOT NULL, path TEXT NOT NULL, PRIMARY KEY (key, path)) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Entry:
    """One study in the ledger.

    Attributes:
        key: Hash of content, package and settings.
        content: Hash of the input's content.
        package: Hash of the model package.
        study: The study's name.
        form: Form of the source.
        state: State of the work; `replaced`: its input has other content now, which is done.
        reason: Code of the refusal or failure, or empty.
        message: One line about it, or empty.
        attempts: How often work on it was begun.
        output: The segmentation, relative to the output folder.
        output_sha256: Hex digest of that file.
        delivered: Where it was sent, if a sink beyond the folder took it.
        seconds: Time the segmentation took, in s.
        measures: What was measured on the way: volumes in mL, flags, intensity, spacing and notes.
        run: Number of the last run that met the study.
        worked: Number of the last run that worked on it.
    """

    key: str
    content: str
    package: str
    study: str
    form: str
    state: State
    reason: str
    message: str
    attempts: int
    output: str | None
    output_sha256: str | None
    delivered: str | None
    seconds: float
    measures: dict[str, Any]
    run: int
    worked: int


FIELDS = (
    "studies.key, content, package, study, form, state, reason, message, attempts, output, "
    "output_sha256, delivered, seconds, measures, studies.run, worked"
)

NUM_FIELDS = len(Entry.__dataclass_fields__)


def entry_of(row: tuple[Any, ...]) -> Entry:
    """The entry in a row of `FIELDS`."""
    values = dict(zip(Entry.__dataclass_fields__, row, strict=True))
    return Entry(**{**values, "measures": json.loads(values["measures"])})
