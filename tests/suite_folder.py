"""The folder in which the suite has its home, caches and temporary files, apart from the user's."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

WHOLE = "SEGMED_TESTS_FOLDER"
"""Variable that names the folder of the whole run; the processes of a divided run (pytest-xdist)
have folders of their own in it."""

SUITE_FOLDER = Path(tempfile.mkdtemp(prefix="segmed-tests-", dir=os.environ.get(WHOLE)))
"""Home, caches and temporary files of this process and of every process that it starts."""

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


_removed_at_exit: list[Path] = []


def isolate() -> None:
    """Point every folder that a user may own into the suite's folder, and name no server.

    Runs when this file is imported: before any test module, hence before any library reads its
    environment. The processes of a divided run (pytest-xdist) share the cores out.
    """
    os.environ.setdefault(WHOLE, str(SUITE_FOLDER))
    if processes := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
    atexit.register(_remove, os.getpid())  # the first to be registered is the last to run
    SUITE_FOLDER.chmod(0o711)  # servers such as PostgreSQL run as users of their own
    for variable, name in FOLDERS.items():
        folder = SUITE_FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[variable] = str(folder)
    for variable in UNSET:
        os.environ.pop(variable, None)
    tempfile.tempdir = None


def remove_at_exit() -> None:
    """Have the folder removed when this process ends, after all that libraries do at its end."""
    _removed_at_exit.append(SUITE_FOLDER)


def _remove(owner: int) -> None:
    if os.getpid() == owner:
        for folder in _removed_at_exit:
            shutil.rmtree(folder, ignore_errors=True)
