"""Marks of processes: a number that the system gave again is another process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from segmed.io import process_mark as marks
from segmed.io.process_mark import is_running, process_mark

SAY_MARK = """
import sys
from segmed.io.process_mark import process_mark
open("/proc/self/comm", "w").write(sys.argv[1])
print(process_mark(), flush=True)
sys.stdin.read()
"""


class Other:
    """Another process, and its mark."""

    def __init__(self, name: str = "other") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SAY_MARK, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        assert self.process.stdout is not None
        self.mark = self.process.stdout.readline().strip()

    def end(self) -> None:
        self.process.communicate()


@pytest.fixture
def other() -> Iterator[Other]:
    found = Other()
    yield found
    found.end()


def test_living_processes_are_running() -> None:
    other = Other(") 1 (")  # the name of a program may look like the fields behind it
    assert is_running(process_mark())
    assert other.mark.split(".")[0] == str(other.process.pid)
    assert is_running(other.mark)
    other.end()
    assert not is_running(other.mark)


def test_a_process_that_got_the_number_again_is_another(other: Other) -> None:
    number, start, boot = other.mark.split(".")
    assert not is_running(f"{number}.{int(start) - 1}.{boot}")


def test_processes_of_another_machine_or_boot_do_not_run_here(other: Other) -> None:
    number, start, _ = other.mark.split(".")
    assert not is_running(f"{number}.{start}.00000000")


def test_killed_process_that_nobody_waited_for_is_not_running(other: Other) -> None:
    other.process.kill()
    os.waitid(os.P_PID, other.process.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{other.process.pid}").exists()
    assert not is_running(other.mark)


def test_marks_of_earlier_versions_are_numbers_alone(other: Other) -> None:
    assert is_running(str(other.process.pid))
    other.end()
    assert not is_running(str(other.process.pid))


@pytest.mark.parametrize("mark", ["", ".", "x.y.z", "12x", "..", "1.2", "-1.5.aaaaaaaa"])
def test_text_that_is_no_mark_names_no_process(mark: str) -> None:
    assert not is_running(mark)


def test_systems_without_proc_go_by_psutil(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, other: Other
) -> None:
    monkeypatch.setattr(marks, "PROCESSES", tmp_path / "absent")
    mine = process_mark()
    number, start, boot = mine.split(".")
    assert is_running(mine)
    assert not is_running(f"{number}.{int(start) - 1000}.{boot}")
    assert is_running(str(other.process.pid))
    other.end()
    assert not is_running(str(other.process.pid))
