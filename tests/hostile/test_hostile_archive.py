"""An archive full of hostile files: each is refused, the sound study is done."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from dicoms import DICOM
from pictures import PICTURES
from tiny_data import tiny_plan
from typer.testing import CliRunner
from volumes import VOLUMES
from watch import watching

from pipelines.cli.app import app
from segmed.models import build_model
from segmed.package import ModelPackage

IMAGES = [entry for entry in (*VOLUMES, *PICTURES, *DICOM) if entry.kind == "image"]
TRAVERSING = "../../../../../../tmp/escaped"
CONVERTED = "converted"
"""Folder in the cache for models that an engine has compiled, named by digests of the model."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = tiny_plan()
    options = plan.networks["unet"].options
    torch.manual_seed(0)
    network = build_model("unet", spatial_dims=3, in_channels=1, num_classes=3, **options)
    made = ModelPackage("unet", options, plan, network.state_dict(), {})
    return made.save(tmp_path_factory.mktemp("model") / "package")


@pytest.mark.slow
def test_archive_of_hostile_files_is_gone_through_and_nothing_is_written_elsewhere(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, out, scratch = tmp_path / "archive", tmp_path / "out", tmp_path / "scratch"
    scratch.mkdir()
    for number, entry in enumerate(IMAGES):
        (archive / f"{number:03d}").mkdir(parents=True)
        entry.make(archive / f"{number:03d}")
    voxels = np.random.default_rng(3).integers(0, 900, (12, 12, 12)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), archive / "sound.nii.gz")
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with watching() as seen:
        result = CliRunner().invoke(
            app, ["archive", "segment", str(archive), "--model", str(package), "-o", str(out)]
        )
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1, result.output
    outcomes = json.loads((out / "outcomes.json").read_text(encoding="utf-8"))
    done = [entry for entry in outcomes if entry["status"] == "done"]
    assert len(done) == 1, outcomes
    assert {entry["status"] for entry in outcomes if entry not in done} <= {"refused", "failed"}
    assert len(outcomes) > len(IMAGES) // 2  # files that are no images at all have no outcome
    assert seen.outside(out, scratch) == []
    assert seen.called == []
    assert len(list((out / "segmentations").rglob("*.nii.gz"))) == 1
    assert result.output.replace("\n", "").isprintable()


def test_identifiers_that_climb_out_of_folders_name_no_file(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Identifiers of a DICOM object are text that a stranger wrote, not parts of a path."""
    from dicoms import changed  # noqa: PLC0415 - keeps the head about the table

    def climb(dataset: object) -> None:
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "PatientID", "SeriesDescription"):
            setattr(dataset, name, TRAVERSING)

    archive, out, scratch = tmp_path / "archive", tmp_path / "out", tmp_path / "scratch"
    cache = tmp_path / "cache"
    for folder in (archive, scratch, cache):
        folder.mkdir()
    changed(climb)(archive)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setenv("SEGMED_CACHE", str(cache))
    for command in (["archive", "segment"], ["predict"]):
        with watching() as seen:
            CliRunner().invoke(
                app,
                [*command, str(archive), "--model", str(package), "-o", str(out / command[0])],
            )
        assert seen.outside(out, scratch, cache / CONVERTED) == []
    written = [path.name for path in out.rglob("*") if path.is_file()]
    assert "outcomes.json" in written
    assert "predictions.json" in written
    written += [path.name for path in cache.rglob("*")]
    assert not any("escaped" in name for name in written)
