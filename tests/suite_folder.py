"""The folder in which the suite has its home, caches and temporary files, apart from the user's."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

SUITE_FOLDER = Path(tempfile.mkdtemp(prefix="segmed-tests-"))
"""Home, caches and temporary files of the whole run and of every process that it starts."""

FOLDERS = {
    "HOME": "home",
    "XDG_CACHE_HOME": "home/.cache",
    "XDG_CONFIG_HOME": "home/.config",
    "XDG_DATA_HOME": "home/.local/share",
    "XDG_STATE_HOME": "home/.local/state",
    "SEGMED_CACHE": "cache",
    "PREFECT_HOME": "prefect",
    "MPLCONFIGDIR": "matplotlib",
    "TMPDIR": "tmp",
}
UNSET = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "PREFECT_API_URL",
    "PREFECT_PROFILE",
    "SEGMED_SALT_FILE",
)
"""Variables by which a user names servers and files."""


def isolate() -> None:
    """Point every folder that a user may own into the suite's folder, and name no server.

    Runs when this file is imported: before any test module, hence before any library reads its
    environment.
    """
    SUITE_FOLDER.chmod(0o711)  # servers such as PostgreSQL run as users of their own
    for variable, name in FOLDERS.items():
        folder = SUITE_FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[variable] = str(folder)
    for variable in UNSET:
        os.environ.pop(variable, None)
    tempfile.tempdir = None
