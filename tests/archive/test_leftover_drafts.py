"""Drafts beside the outputs of an archive: those of processes that ended are removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from segmed.archive.writing import STAGING, remove_leftovers
from segmed.io.process_mark import process_mark

PID, START, BOOT = process_mark().split(".")
PARENT = str(os.getppid())


def draft(outputs: Path, owner: str) -> Path:
    folder = outputs / STAGING / f"{owner}-k3x_a9q1"
    folder.mkdir(parents=True)
    (folder / "study.nii.gz").touch()
    return folder


@pytest.mark.parametrize(
    "owner",
    [
        f"{PID}.{START}.{BOOT}",  # of an earlier run in this process
        f"{PID}.{int(START) - 5}.{BOOT}",  # the number was given again, to this process
        f"{PARENT}.{int(START) + 5}.{BOOT}",  # ... or to another that runs
        f"{PID}.{START}.00000000",  # of another machine that shares the folder
        PID,  # of an earlier version: containers run the same numbers again
        "4999999",  # of an earlier version, ended
        "",
    ],
    ids=["mine", "number mine", "number others", "elsewhere", "old mine", "old ended", "no owner"],
)
def test_drafts_of_ended_processes_are_removed(tmp_path: Path, owner: str) -> None:
    left = draft(tmp_path, owner)
    assert remove_leftovers(tmp_path) == 1
    assert not left.exists()


def test_draft_of_another_living_process_stays(tmp_path: Path) -> None:
    living = draft(tmp_path, PARENT)  # as an earlier version names it
    assert remove_leftovers(tmp_path) == 0
    assert living.exists()


def test_draft_of_a_living_worker_stays_until_it_is_killed(tmp_path: Path) -> None:
    code = "from segmed.io.process_mark import process_mark; print(process_mark()); input()"
    worker = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    with worker:
        draft(tmp_path, worker.stdout.readline().strip())
        assert remove_leftovers(tmp_path) == 0
        worker.kill()
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
        assert remove_leftovers(tmp_path) == 1  # though nobody has waited for it yet
