"""The check itself, tried on a CPU; and the whole of it where there is a GPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.gpu", *options]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_parts_and_devices_that_are_not_there_are_named() -> None:
    unknown = run("rigth")
    assert unknown.returncode == 2
    assert "unknown part 'rigth': known are right, volume, dice, speed" in unknown.stderr
    if not torch.cuda.is_available():
        absent = run("right")
        assert absent.returncode == 2
        assert "PyTorch sees no GPU" in absent.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_check_runs_through_on_a_cpu(
    shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    data, out = shared_data("hippocampus"), tmp_path / "check.json"
    options = ("--device", "cpu", "--tiny", "--data", str(data), "--out", str(out))
    done = run("right", "volume", "speed", *options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert out.exists()


@pytest.mark.gpu
@pytest.mark.timeout(900)
def test_everything_is_right_on_this_gpu(
    shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    data, out = shared_data("hippocampus"), tmp_path / "check.json"
    done = run("right", "volume", "--data", str(data), "--out", str(out))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
