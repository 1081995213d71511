"""Removal of temporary files after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segmed.io.process_mark import process_mark
from segmed.io.scratch import remove_scratch_leftovers, scratch_folder, scratch_space

LEAVE_ONE = """
import os, signal
from segmed.io.scratch import scratch_folder
(scratch_folder() / "0.dcm").write_bytes(b"personal")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def leave_one() -> None:
    ended = subprocess.run([sys.executable, "-c", LEAVE_ONE], check=False, env=dict(os.environ))
    assert ended.returncode == -signal.SIGKILL


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_has_stays(
    temporary: Path,
) -> None:
    leave_one()
    mine = scratch_folder()
    assert len(list(temporary.iterdir())) == 2
    assert remove_scratch_leftovers() == 1
    assert list(temporary.iterdir()) == [mine]


def test_leftovers_go_though_a_later_process_has_the_number(temporary: Path) -> None:
    mine = scratch_folder()
    number, start, _ = process_mark().split(".")
    earlier = Path(str(mine).replace(f"{number}.{start}", f"{number}.{int(start) - 7}"))
    earlier.mkdir()
    assert remove_scratch_leftovers() == 1
    assert list(temporary.iterdir()) == [mine]


def test_folders_of_earlier_versions_go_when_their_process_has_ended(temporary: Path) -> None:
    leave_one()
    (left,) = temporary.iterdir()
    begin, _, end = left.name.partition(".")
    left.rename(temporary / f"{begin}-{end.rpartition('-')[2]}")  # the number alone
    (living,) = [Path(str(scratch_folder()).replace(process_mark(), str(os.getppid())))]
    living.mkdir()
    remove_scratch_leftovers()
    assert living in temporary.iterdir()
    assert not (temporary / f"{begin}-{end.rpartition('-')[2]}").exists()


def test_scratch_space_is_removed_after_errors_too(temporary: Path) -> None:
    def fail() -> None:
        with scratch_space() as folder:
            (folder / "voxels.npy").touch()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not list(temporary.iterdir())
