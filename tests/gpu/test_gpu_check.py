"""The check itself, tried on a CPU; and the whole of it where there is a GPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.gpu import dice, peer
from tests.gpu.findings import Check
from tests.gpu.wheels import PACKAGES, missing_packages, wheels

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.gpu", *options]
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, encoding="utf-8"
    )


def test_parts_and_devices_that_are_not_there_are_named() -> None:
    unknown = run("rigth")
    assert unknown.returncode == 2
    assert unknown.stderr == (
        "python -m tests.gpu: unknown part 'rigth': known are right, volume, speed, dice, nnunet, "
        "atrium\n"
    )
    if not torch.cuda.is_available():
        absent = run("right")
        assert absent.returncode == 2
        assert absent.stderr.count("\n") == 1
        assert "sees no GPU: nothing was checked; --device cpu --tiny tries" in absent.stderr
        assert absent.stdout == ""


BARE = """
import importlib.metadata as metadata, sys
allowed = set(sys.argv[1].split(","))
known = metadata.packages_distributions()

class OnlyCarried:
    def find_spec(self, name, path=None, target=None):
        owners = {owner.lower().replace("_", "-") for owner in known.get(name.split(".")[0], ())}
        if owners and not owners & allowed:
            raise ModuleNotFoundError(f"{name} was not carried along", name=name)

sys.meta_path.insert(0, OnlyCarried())
import tests.gpu.dice, tests.gpu.peer, tests.gpu.right, tests.gpu.speed, tests.gpu.volume
"""
"""Imports the check where all but some packages are missing."""

OF_PYTORCH = (
    "torch", "numpy", "scipy", "pandas", "sympy", "mpmath", "networkx", "jinja2", "markupsafe",
    "filelock", "fsspec", "six", "python-dateutil", "pytz", "packaging", "setuptools", "segmed",
)  # fmt: skip
"""On any machine with PyTorch, SciPy and pandas."""


def test_the_wheels_that_are_named_suffice_to_import_the_check() -> None:
    carried = ",".join([*OF_PYTORCH, *[name.lower().replace("_", "-") for name in PACKAGES]])
    command = [sys.executable, "-c", BARE, carried]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lacking = [sys.executable, "-c", BARE, carried.replace("numcodecs", "nothing")]
    done = subprocess.run(
        lacking, cwd=REPOSITORY, capture_output=True, text=True, check=False, encoding="utf-8"
    )
    assert "numcodecs was not carried along" in done.stderr


def test_wheels_are_printed_with_their_versions() -> None:
    assert missing_packages() == []
    printed = run("--wheels").stdout.split()
    assert printed == wheels()
    assert all("==" in line for line in printed)


HAS_NNUNET = find_spec("nnunetv2") is not None


def check_of(data: Path, atrium: Path, scratch: Path) -> Check:
    return Check(torch.device("cpu"), True, data, atrium, scratch, 1.0)


def test_a_part_without_its_data_is_left_out_by_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = check_of(tmp_path / "none", tmp_path / "none", tmp_path)
    dice.atrium(check)
    assert check.failed == []
    assert check.found == {"left atrium": f"left out: there is no folder {tmp_path / 'none'}"}
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.skipif(HAS_NNUNET, reason="nnU-Net is installed: its part runs")
def test_the_part_of_nnunet_is_left_out_by_a_line_where_it_is_not_installed(tmp_path: Path) -> None:
    check = check_of(tmp_path / "none", tmp_path / "none", tmp_path)
    peer.run(check)
    assert check.found == {"nnU-Net": "not installed: left out"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not HAS_NNUNET, reason="nnU-Net is not installed; `make bench` installs it")
def test_nnunet_is_trained_and_scored_on_our_folds(
    shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    check = check_of(shared_data("hippocampus"), tmp_path / "none", tmp_path)
    peer.run(check)
    assert check.found["nnU-Net: epochs of 250 steps"] == 1
    assert check.found["nnU-Net: patch and patches a step"].startswith("40x56x40 at ")
    assert 0 <= check.found["nnU-Net: Dice"] <= 1


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
