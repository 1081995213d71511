"""`segmed archive` at the command line: what is asked for is done, and what cannot be is said."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from monai.data import MetaTensor
from tiny_data import tiny_plan
from typer.testing import CliRunner, Result

from pipelines.cli.app import app
from segmed.io.dicom.write import Identity, write_series
from segmed.models import build_model
from segmed.package import ModelPackage


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two NIfTI images, one MR series, and a truncated image."""
    root = tmp_path / "archive"
    root.mkdir()
    for seed in range(3):
        voxels = np.random.default_rng(seed).integers(0, 900, (12, 12, 8)).astype(np.float32)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), root / f"{seed}.nii.gz")
    broken = root / "2.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-40])
    voxels = np.random.default_rng(9).integers(0, 900, (1, 12, 12, 8)).astype(np.float32)
    volume = MetaTensor(torch.from_numpy(voxels), affine=torch.eye(4, dtype=torch.float64))
    write_series(root / "series", volume, identity=Identity(description="T1 of the head"))
    return root


@pytest.fixture
def package(tmp_path: Path) -> Path:
    plan = tiny_plan()
    options = plan.networks["unet"].options
    network = build_model("unet", spatial_dims=3, in_channels=1, num_classes=3, **options)
    return ModelPackage("unet", options, plan, network.state_dict()).save(tmp_path / "package")


def segment(archive: Path, package: Path, out: Path, *more: str) -> Result:
    words = ["archive", "segment", str(archive), "--model", str(package), "--out", str(out)]
    return CliRunner().invoke(app, [*words, *more])


def test_run_shows_its_progress_and_leaves_table_and_page(
    archive: Path, package: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ended = segment(archive, package, out, "--table", "parquet")
    assert ended.exit_code == 1, ended.output
    assert ended.stderr.count(": done, ") == 3
    assert "refused: study" in ended.stdout
    assert f"report: {out / 'report.html'}" in ended.stdout
    assert len(pd.read_parquet(out / "volumes.parquet")) == 3
    again = segment(archive, package, out)
    assert again.exit_code == 1
    assert ": done, " not in again.stderr


def test_default_engine_converts_once_and_gives_the_labels_of_eager_torch(
    archive: Path, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGMED_CACHE", str(tmp_path / "cache"))

    def outputs(name: str, *words: str) -> dict[str, np.ndarray]:
        ended = segment(archive, package, tmp_path / name, *words)
        assert ended.exit_code == 1, ended.output  # the truncated image
        found = (tmp_path / name / "segmentations").glob("*.nii.gz")
        return {path.name: np.asanyarray(nib.load(path).dataobj) for path in found}

    eager = outputs("eager", "--engine", "torch")
    assert not (tmp_path / "cache").exists()
    default = outputs("default")
    (model,) = (tmp_path / "cache/converted").rglob("*.xml")
    made = model.stat().st_mtime_ns
    workers = outputs("workers", "--workers", "1")
    assert model.stat().st_mtime_ns == made
    assert len(eager) == 3
    assert eager.keys() == default.keys() == workers.keys()
    for name, labels in eager.items():
        assert np.mean(labels != default[name]) <= 1e-3  # a voxel of these small volumes
        np.testing.assert_array_equal(default[name], workers[name])


@pytest.mark.parametrize(
    ("query", "statuses"),
    [
        (["--modality", "MR"], ["pending"]),
        (["--description", "t1.*HEAD"], ["pending"]),
        (["--body-part", "KNEE"], []),
        (["--unsegmented", "--limit", "1"], ["pending"]),
        (["--until", "1999-12-31"], []),
    ],
)
def test_dry_run_of_a_query_names_what_would_be_done_and_writes_nothing(
    archive: Path, package: Path, tmp_path: Path, query: list[str], statuses: list[str]
) -> None:
    out = tmp_path / "out"
    ended = segment(archive, package, out, "--dry-run", "--json", *query)
    assert ended.exit_code == 0, ended.output
    assert [entry["status"] for entry in json.loads(ended.stdout)] == statuses
    assert not out.exists()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--description", "("], "not a regular expression"),
        (["--table", "xlsx"], "csv, parquet"),
        (["--engine", "steam"], "known are auto, compile, int8, openvino, torch"),
        (["--rules", "absent.yaml"], "absent.yaml"),
        (["--seg", "labelmap"], "--seg labelmap is a form of --format dicom-seg"),
        (["--format", "dicom-seg", "--seg", "mesh"], "known are binary, fractional, labelmap"),
    ],
)
def test_wrong_choices_are_refused_with_what_would_do(
    archive: Path, package: Path, tmp_path: Path, wrong: list[str], told: str
) -> None:
    ended = segment(archive, package, tmp_path / "out", *wrong)
    assert ended.exit_code != 0
    assert told in f"{ended.output} {ended.exception}"


def test_dry_run_says_of_each_series_why_it_is_chosen_or_passed_over(
    archive: Path, package: Path, tmp_path: Path
) -> None:
    volume = MetaTensor(torch.ones(1, 12, 12, 8), affine=torch.eye(4, dtype=torch.float64))
    write_series(archive / "survey", volume, identity=Identity(description="scout"))
    asked = segment(archive, package, tmp_path / "out", "--dry-run", "--description", "t1")
    (line,) = (line for line in asked.stdout.splitlines() if "would be segmented" in line)
    assert "(dicom): series/" in line
    assert "a model of one channel takes every image series" in line
    assert "passed over: 8 files in survey: series not requested" in asked.stdout

    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "channels:\n  - {name: T1, modality: MR, words: [t1], min_slices: 4}\n", encoding="utf-8"
    )
    ruled = segment(archive, package, tmp_path / "out", "--dry-run", "--rules", str(rules))
    why = "channel T1: modality MR, a description with t1, at least 4 slices"
    assert any(line.endswith(why) for line in ruled.stdout.splitlines())


def test_image_beyond_the_limit_names_the_option_that_lets_it_pass(
    archive: Path, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGMED_MAX_VOXELS", "1000")
    few = segment(archive, package, tmp_path / "few")
    assert "states 1152 voxels, the limit is 1000" in few.stdout
    assert "--max-voxels 1152" in few.stdout
    for number, name in ((0, "predicted"), (1, "in workers")):
        monkeypatch.setenv("SEGMED_MAX_VOXELS", "1000")
        words = ["--max-voxels", "1152", "--workers", str(number)]
        enough = segment(archive, package, tmp_path / name, *words)
        assert "the limit is" not in enough.stdout
        assert "3 done" in enough.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "IMAGE", "--model", "PACKAGE", "-o", "out"],
        ["manifest", "build", "SRC", "-o", "set.json"],
        ["train", "MANIFEST", "--model", "unet"],
        ["compare", "MANIFEST"],
        ["evaluate", "--predictions", "DIR", "--references", "DIR", "-o", "out"],
        ["manifest", "check", "MANIFEST"],
        ["plan", "MANIFEST"],
    ],
)
def test_every_command_whose_error_names_max_voxels_takes_it(words: list[str]) -> None:
    ended = CliRunner().invoke(app, [*words, "--max-voxels", "0"])
    assert ended.exit_code == 2
    assert "--max-voxels" in ended.output
    assert "No such option" not in ended.output
