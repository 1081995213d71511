"""Situations of public bug reports on the real commands; scripts that each print one verdict.

Copies of two scripts whose originals lean on flat names of outputs: since results mirror the tree
of their inputs, one compares contents instead of names, and one counts files in subfolders too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("script", sorted(HERE.glob("[0-9]*.py")), ids=lambda path: path.stem)
def test_situation_ends_as_it_should(script: Path) -> None:
    if "unshare" in script.read_text(encoding="utf-8") and (
        os.geteuid() != 0 or not shutil.which("unshare")
    ):
        pytest.skip("mounting an archive read-only needs root and util-linux")
    if not (REPOSITORY / ".venv" / "bin" / "segmed").exists():
        pytest.skip("the scripts run .venv/bin/segmed of the clone: make test-all installs it")
    environment = {**os.environ, "SEGMED_ROOT": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert done.stdout.startswith("PASS"), done.stdout[-1500:] + done.stderr[-1500:]
