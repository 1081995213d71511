"""Commands run as a user would, with nothing of this checkout on the path."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

HIDDEN = ("PYTHONPATH", "VIRTUAL_ENV", "MLFLOW_TRACKING_URI", "PREFECT_API_URL")
"""Variables that would lead a command back to this checkout or to its servers."""


def run(*command: str | Path, folder: Path) -> str:
    """Run a command in a folder and return its output; fail with the output if it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in HIDDEN},
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 0, f"{command[:2]}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
    return done.stdout
