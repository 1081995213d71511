"""Several models in one archive run: an output of each, and nothing overwritten."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner, Result

sys.path.append(str(Path(__file__).parents[2] / "archive"))  # for tiny_model.py

from tiny_model import tiny_package

from pipelines.cli.app import app
from pipelines.runs.several import folder_names
from segmed.errors import UsageError


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    voxels = np.random.default_rng(1).integers(0, 900, (12, 12, 8)).astype(np.float32)
    (tmp_path / "scans").mkdir()
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "scans/1.nii.gz")
    return tmp_path / "scans"


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """Two models of one name in two folders."""
    return [tiny_package(seed=n).save(tmp_path / f"{n}/tiny") for n in range(2)]


def segment(scans: Path, models: list[Path], out: Path, *more: str) -> Result:
    words = [word for model in models for word in ("--model", str(model))]
    command = ["archive", "segment", str(scans), *words, "--out", str(out), "--engine", "torch"]
    return CliRunner().invoke(app, [*command, *more])


def test_each_model_gives_an_output_of_its_own(
    scans: Path, models: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ended = segment(scans, models, out, "--several", "each")
    assert ended.exit_code == 0, ended.output
    assert "2 done" in ended.stdout
    assert f"report: {out / 'tiny-2/report.html'}" in ended.stdout
    first, second = (out / name / "segmentations/1.nii.gz" for name in ("tiny", "tiny-2"))
    alone = tmp_path / "alone"
    assert segment(scans, models[:1], alone).exit_code == 0
    assert first.read_bytes() == (alone / "segmentations/1.nii.gz").read_bytes()
    assert first.read_bytes() != second.read_bytes()
    again = segment(scans, models, out, "--several", "each", "--dry-run")
    assert again.output.count("would be passed over: segmented before") == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--several", "both"), "unknown use of several models 'both': known are each, ensemble"),
        (("--several", "each", "--cluster", "tcp://a:1"), "a cluster uses one model a run"),
    ],
)
def test_use_of_several_models_that_cannot_work_is_named(
    scans: Path, models: list[Path], tmp_path: Path, more: tuple[str, ...], said: str
) -> None:
    ended = segment(scans, models, tmp_path / "out", *more)
    assert ended.exit_code == 2
    assert said in ended.stderr


def test_folder_of_a_model_is_named_after_it_and_its_own() -> None:
    names = folder_names(["models:/a@champion", "models:/a/3", "x/Tiny.zip", "y/tiny.zip", "y/.."])
    assert list(names.values()) == ["a-champion", "a-3", "Tiny", "tiny-2", "model"]
    with pytest.raises(UsageError, match="named twice"):
        folder_names(["a", "a"])
