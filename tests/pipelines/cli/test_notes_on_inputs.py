"""`segmed predict` and `segmed archive segment` print what was odd about an input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from tiny_data import tiny_plan
from typer.testing import CliRunner

from pipelines.cli.app import app
from segmed.io.dicom.write import write_series
from segmed.metatensor import MetaTensor
from segmed.models import build_model
from segmed.package import ModelPackage

NOTE = "MONOCHROME1: stored values are kept, low is bright"


@pytest.fixture
def package_dir(tmp_path: Path) -> Path:
    plan = tiny_plan()
    options = plan.networks["unet"].options
    torch.manual_seed(0)
    network = build_model("unet", spatial_dims=3, in_channels=1, num_classes=3, **options)
    package = ModelPackage("unet", options, plan, network.state_dict(), {"data": "cubes"})
    return package.save(tmp_path / "package")


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A series whose low values are bright."""
    voxels = np.random.default_rng(0).integers(0, 900, (1, 16, 16, 16)).astype(np.float32)
    for path in write_series(tmp_path / "scans/s", MetaTensor(torch.from_numpy(voxels))):
        dataset = pydicom.dcmread(path)
        dataset.PhotometricInterpretation = "MONOCHROME1"
        dataset.save_as(path, enforce_file_format=True)
    return tmp_path / "scans/s"


def test_predict_prints_and_records_it(package_dir: Path, series: Path, tmp_path: Path) -> None:
    words = ["predict", series, "--model", package_dir, "--engine", "torch", "-o", tmp_path / "out"]
    dry = CliRunner().invoke(app, [*map(str, words), "--dry-run"])
    assert f"note: {series}: {NOTE}" in dry.stdout.splitlines()
    result = CliRunner().invoke(app, list(map(str, words)))
    assert f"note: {series}: {NOTE}" in result.stdout.splitlines()
    [outcome] = json.loads((tmp_path / "out/predictions.json").read_text(encoding="utf-8"))[
        "outcomes"
    ]
    assert outcome["notes"] == [NOTE]


def test_archive_prints_it(package_dir: Path, series: Path, tmp_path: Path) -> None:
    words = [
        "archive", "segment", series.parent, "--model", package_dir, "--engine", "torch",
        "-o", tmp_path / "out",
    ]  # fmt: skip
    result = CliRunner().invoke(app, list(map(str, words)))
    [outcome] = json.loads((tmp_path / "out/outcomes.json").read_text(encoding="utf-8"))
    assert f"note: study {outcome['study']}: {NOTE}" in result.stdout.splitlines()
