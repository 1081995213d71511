"""Removal of temporary files after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segmed.archive.scratch import remove_scratch_leftovers, scratch_folder

LEAVE_ONE = """
import os, signal
from segmed.archive.scratch import scratch_folder
(scratch_folder() / "0.dcm").write_text("personal")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_has_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    ended = subprocess.run([sys.executable, "-c", LEAVE_ONE], check=False, env=dict(os.environ))
    assert ended.returncode == -signal.SIGKILL
    mine = scratch_folder()
    assert len(list(tmp_path.iterdir())) == 2
    assert remove_scratch_leftovers() == 1
    assert list(tmp_path.iterdir()) == [mine]
