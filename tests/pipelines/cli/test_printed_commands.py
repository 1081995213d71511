"""Commands that are printed to try next run as they are printed, also off the PATH."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.demo.run import _lines
from pipelines.terminal.console import program

OWN = Path(sys.executable).parent


def test_program_off_the_path_is_printed_with_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shlex.split(program()) == [str(OWN / "segmed")]
    assert shlex.split(program("mlflow")) == [str(OWN / "mlflow")]


def test_program_on_the_path_is_printed_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(OWN))
    assert program() == "segmed"


def test_another_installation_on_the_path_is_not_mistaken_for_this_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "segmed"
    other.write_text("#!/bin/sh\nexit 9\n", encoding="utf-8")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shlex.split(program()) == [str(OWN / "segmed")]


@pytest.mark.slow
def test_demo_prints_commands_that_run_as_printed(tmp_path: Path) -> None:
    bare = {**os.environ, "PATH": "/usr/bin:/bin"}
    bare.pop("MLFLOW_TRACKING_URI", None)
    folder = tmp_path / "odd folder"
    folder.mkdir()
    done = subprocess.run(
        [OWN / "segmed", "demo", "--quick"],
        cwd=folder, env=bare, capture_output=True, text=True, timeout=1500, check=True,
        encoding="utf-8",
    )  # fmt: skip
    printed = done.stdout.split("to try next:")[1].strip().splitlines()
    assert len(printed) == 3
    for line in printed:
        command = line.strip()
        if " ui " in command:  # a server that never ends by itself
            command = command.split(" ui ")[0] + " --version"
        ended = subprocess.run(
            command, shell=True, cwd=folder, env=bare, capture_output=True, text=True,
            timeout=600, check=False, encoding="utf-8",
        )  # fmt: skip
        assert ended.returncode in ({1} if " predict " in command else {0}), ended.stderr


def test_lines_of_the_demo_quote_what_a_shell_would_split(tmp_path: Path) -> None:
    folder = tmp_path / "odd folder"
    summary = {
        "winner": "unet", "mean_dice": {"unet": 0.5}, "archive": {"done": 1}, "remarks": [],
        "report": "r", "comparison": "c", "tracking": f"sqlite:///{folder}/mlflow.db",
        "model": "models:/hippocampus@champion", "segmentations": str(folder / "archive"),
    }  # fmt: skip
    predict = next(line for line in _lines(summary) if " predict " in line)
    words = shlex.split(predict)
    assert words[0] == f"MLFLOW_TRACKING_URI=sqlite:///{folder}/mlflow.db"
    assert str(folder / "archive_source") in words
