"""Address of the tracking server or of the embedded database, found without importing MLflow."""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.tracking.database import sqlite_path, sqlite_uri


def tracking_uri(folder: Path) -> str:
    """Return the tracking address: `MLFLOW_TRACKING_URI` if set, else a SQLite file in `folder`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(folder / "mlflow.db")


def without_password(uri: str) -> str:
    """A URI without the credentials before its `@`; the path of a file stays whole."""
    if sqlite_path(uri) is not None:
        return uri
    scheme, mark, rest = uri.partition("://")
    return scheme + mark + rest.rpartition("@")[2]
