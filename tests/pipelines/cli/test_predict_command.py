"""`segmed predict` as a user meets it: folders, bad files, dry runs, limits."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_data import tiny_plan, write_case
from typer.testing import CliRunner, Result

from pipelines.cli.app import app
from pipelines.terminal.console import tracked
from segmed.inference import Predictor
from segmed.io import read_image, read_label
from segmed.models import build_model
from segmed.package import ModelPackage


@pytest.fixture(scope="module")
def package_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = tiny_plan()
    options = plan.networks["unet"].options
    torch.manual_seed(0)
    network = build_model("unet", spatial_dims=3, in_channels=1, num_classes=3, **options)
    package = ModelPackage("unet", options, plan, network.state_dict(), {"data": "cubes"})
    return package.save(tmp_path_factory.mktemp("model") / "package")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images, one of them in a subfolder."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    for place in (folder, folder / "more"):
        write_case(place, "case", 0)
        (place / "case_label.nii").unlink()
    return folder


def predict(package: Path, *words: str | Path) -> Result:
    fixed = ["predict", "--model", str(package), "--engine", "torch", "--device", "cpu"]
    return CliRunner().invoke(app, [*fixed, *map(str, words)])


def test_folder_is_searched_and_each_image_done_once(
    package_dir: Path, images: Path, tmp_path: Path
) -> None:
    result = predict(package_dir, images, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "2 segmented, 0 not" in result.stdout
    assert "2 of 2" in result.stderr
    assert "images/s" in result.stderr
    record = json.loads((tmp_path / "out/predictions.json").read_text(encoding="utf-8"))
    assert [Path(entry["input"]).parent.name for entry in record["outcomes"]] == ["images", "more"]
    assert record["engines"] == ["torch on cpu"]
    image = read_image(images / "case_image.nii")
    expected = Predictor(ModelPackage.load(package_dir), engine="torch").predict(image).label
    written = read_label(tmp_path / "out/case_image.nii.gz")
    np.testing.assert_array_equal(written.numpy(), expected.numpy())


def test_bad_images_are_listed_last_and_the_status_is_one(
    package_dir: Path, images: Path, tmp_path: Path
) -> None:
    (images / "torn.nii").write_bytes(b"\0" * 100)
    result = predict(package_dir, images, tmp_path / "absent.nii", "-o", tmp_path / "out")
    assert result.exit_code == 1
    last = result.stdout.strip().splitlines()[-2:]
    assert last[0].startswith("refused: ")
    assert "torn.nii" in last[0]
    assert "missing_file" in last[1]
    assert "2 segmented, 2 not" in result.stdout


def test_dry_run_tells_engine_and_memory_and_writes_nothing(
    package_dir: Path, images: Path, tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(images / "flat.png")
    out = tmp_path / "out"
    result = predict(package_dir, images, "-o", out, "--dry-run", "--trust", "--json")
    assert result.exit_code == 1
    assert not out.exists()
    record = json.loads(result.stdout)
    assert record["engines"] == ["torch on cpu"]
    volume, flat, other = record["forecasts"]
    assert volume["status"] == other["status"] == "ready"
    assert volume["form"] == "nifti"
    assert volume["shape"] == [16, 16, 16]
    assert volume["spacing_mm"] == [1.0, 1.0, 1.0]
    assert 0.01 < volume["memory_gb"] < 20
    assert flat["status"] == "refused"
    assert flat["memory_gb"] is None


def test_dry_run_shows_lines_for_people(package_dir: Path, images: Path, tmp_path: Path) -> None:
    result = predict(package_dir, images / "more", "-o", tmp_path / "out", "--dry-run")
    assert result.exit_code == 0
    engine, ready = result.stdout.strip().splitlines()
    assert engine == "engine: torch on cpu"
    assert ready.startswith("ready: ")
    assert "nifti, 16x16x16 voxels of 1x1x1 mm, memory " in ready


@pytest.mark.parametrize("extra", [[], ["--dry-run"]], ids=["predict", "dry run"])
def test_image_that_needs_too_much_memory_is_refused_with_the_figure(
    package_dir: Path, images: Path, tmp_path: Path, extra: list[str]
) -> None:
    result = predict(
        package_dir, images / "more", "-o", tmp_path / "out", "--memory-gb", "0.01", *extra
    )
    assert result.exit_code == 1
    assert "0.01 GB are allowed" in result.stdout


def test_probabilities_are_written(package_dir: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = predict(package_dir, images / "more", "-o", out, "--format", "probabilities", "--tta")
    assert result.exit_code == 0, result.output
    written = nib.load(out / "case_image.probs.nii.gz")
    assert written.shape == (16, 16, 16, 3)
    np.testing.assert_allclose(written.get_fdata().sum(-1), 1.0, atol=1e-4)


def test_crashing_decoder_refuses_its_image_unless_trusted(
    package_dir: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(images / "flat.png")
    deadly = tmp_path / "python"
    deadly.write_text("#!/bin/sh\nkill -SEGV $$\n", encoding="utf-8")
    deadly.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(deadly))
    sandboxed = predict(package_dir, images, "-o", tmp_path / "out")
    assert sandboxed.exit_code == 1
    assert "2 segmented, 1 not" in sandboxed.stdout
    assert "decoder_crashed" in sandboxed.stdout
    trusting = predict(package_dir, images, "-o", tmp_path / "other", "--trust")
    assert "decoder_crashed" not in trusting.stdout  # read here; 2D does not fit the model
    assert "2 segmented, 1 not" in trusting.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "jpeg"], "unknown output format 'jpeg'"),
        (["--memory-gb", "0"], "--memory-gb must be positive"),
    ],
    ids=["format", "memory"],
)
def test_bad_wishes_end_with_status_two(
    package_dir: Path, images: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    result = predict(package_dir, images, "-o", tmp_path / "out", *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_progress_passes_everything_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked("abc", str.upper, total=3, unit="letters")) == ["a", "b", "c"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["A (1 of 3", "B (2 of 3", "C (3 of 3"]
