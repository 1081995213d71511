"""The embedded tracking database: its URI, the lock of its first use, and its named faults."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, unquote

from segmed.errors import UsageError

PREFIX = "sqlite:///"
FILE_PREFIX = f"{PREFIX}file:"
RESERVED = "?#%"
"""Characters that a path in a plain SQLite URI cannot contain."""

MAGIC = b"SQLite format 3\0"
OTHER_SCHEMA = "database schema"
"""Words of MLflow's message about a database of another version."""


def sqlite_uri(path: Path) -> str:
    """URI of a SQLite file, whatever characters its folders have."""
    place = str(path.resolve())
    if any(character in place for character in RESERVED):
        return f"{FILE_PREFIX}{quote(place)}?uri=true"
    return PREFIX + place


def sqlite_path(uri: str) -> Path | None:
    """File of a SQLite URI; None for the address of a server."""
    if not uri.startswith(PREFIX):
        return None
    if uri.startswith(FILE_PREFIX):
        return Path(unquote(uri.removeprefix(FILE_PREFIX).partition("?")[0]))
    return Path(uri.removeprefix(PREFIX).partition("?")[0])


def require_usable(path: Path) -> None:
    """Validate a tracking file before MLflow opens it, which would retry for minutes.

    Args:
        path: The file; it may be missing, its folder is made.

    Raises:
        UsageError: The folder cannot be made or written, or the file is not a SQLite database.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        start = b""
        if path.exists():
            with path.open("rb") as stream:
                start = stream.read(len(MAGIC))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(
            f"the tracking database {path} cannot be opened ({reason}): work in another folder, or "
            "name one in MLFLOW_TRACKING_URI"
        ) from error
    if start and start != MAGIC:
        raise damaged(path, "file is not a database")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(
            f"the tracking database {path} cannot be written: work in another folder, or name one "
            "in MLFLOW_TRACKING_URI"
        )


def damaged(path: Path, why: str) -> UsageError:
    """The error for a tracking file that SQLite cannot read."""
    return UsageError(
        f"the tracking database {path} is damaged ({why}): restore it from a backup, or move it "
        "away to begin a new one"
    )


def other_schema(uri: str, detail: str) -> UsageError:
    """The error for a database that another version of MLflow made.

    Args:
        uri: Where the database is, without a password.
        detail: MLflow's message; its versions are in parentheses.
    """
    versions = detail.partition("(")[2].partition(")")[0]
    return UsageError(
        f"the tracking database {uri} was made by another version of MLflow ({versions}): back it "
        f"up and run `mlflow db upgrade '{uri}'`; if a newer MLflow made it, install that one"
    )


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other processes of this machine from making the tables of a tracking file meanwhile.

    Two processes that open a new file at once would both make its tables, and one would fail.
    """
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # file systems without locks: as before
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
