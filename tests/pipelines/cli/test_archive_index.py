"""`segmed archive find|list`, and `evaluate` on the outputs of an archive."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
from contextlib import closing
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
from segmed.errors import UsageError
from segmed.io.dicom.write import write_series
from segmed.metrics.label_pairs import label_files, prediction_files
from segmed.models import build_model
from segmed.package import ModelPackage

OLDER = Path(__file__).parents[2] / "archive/older/version1"


def segmed(*words: object) -> Result:
    return CliRunner().invoke(app, [*map(str, words)])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two volumes, a series and a broken volume, segmented into `out`."""
    folder = tmp_path_factory.mktemp("place")
    plan = tiny_plan()
    options = plan.networks["unet"].options
    torch.manual_seed(0)
    network = build_model("unet", spatial_dims=3, in_channels=1, num_classes=3, **options)
    package = ModelPackage("unet", options, plan, network.state_dict(), {"data": "cubes"})
    for number, name in enumerate(["sub-07/T1", "sub-08/T1", "cut"]):
        path = folder / f"scans/{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        voxels = np.random.default_rng(number).integers(0, 900, (16, 16, 16)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:-40])
    voxels = torch.rand(1, 16, 16, 16) * 900
    volume = MetaTensor(voxels.round(), affine=torch.eye(4, dtype=torch.float64))
    write_series(folder / "scans/study1", volume)
    result = segmed(
        *("archive", "segment", folder / "scans", "--model", package.save(folder / "package")),
        *("-o", folder / "out", "--engine", "torch"),
    )
    assert result.exit_code == 1, result.output
    return folder


def test_find_answers_both_ways(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = place / "out"
    output, source = out / "segmentations/sub-07/T1.nii.gz", place / "scans/sub-07/T1.nii.gz"
    for words in (["sub-07", "-o", out], [output], [out, "sub-07"], ["07", "t1", "--out", out]):
        result = segmed("archive", "find", *words)
        assert result.exit_code == 0, result.output
        [line] = result.stdout.splitlines()
        assert line.startswith(f"done: {output} < {source}, {place / 'package'} (")
    monkeypatch.chdir(place)
    [row] = json.loads(segmed("archive", "find", "sub-08", "--json").stdout)
    assert row["output"] == "segmentations/sub-08/T1.nii.gz"
    assert row["input"] == str(place / "scans/sub-08/T1.nii.gz")
    assert set(row["volumes_ml"]) == {"anterior", "posterior"}


def test_find_names_the_file_to_fetch_again(place: Path) -> None:
    result = segmed("archive", "find", "truncated", "-o", place / "out")
    assert result.stdout.splitlines()[-1] == f"  fetch again: {place / 'scans/cut.nii.gz'}"


def test_nothing_found_and_no_archive_are_said(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = segmed("archive", "find", "sub-09", "-o", place / "out")
    assert (result.exit_code, result.stdout.strip()) == (1, "nothing found")
    monkeypatch.chdir(tmp_path)
    for command in (["find", "x"], ["list"]):
        result = segmed("archive", *command)
        assert result.exit_code == 2
        assert "name the output folder" in result.stderr


def test_list_shows_all_or_those_of_a_status(place: Path) -> None:
    rows = json.loads(segmed("archive", "list", place / "out", "--json").stdout)
    assert sorted(row["status"] for row in rows) == ["done", "done", "done", "refused"]
    result = segmed("archive", "list", place / "out", "--status", "refused")
    assert result.stdout.startswith("refused: study ")
    assert segmed("archive", "list", place / "out", "--status", "odd").exit_code == 2


@pytest.mark.parametrize("layout", ["tree", "flat"])
def test_evaluate_pairs_outputs_by_their_inputs(place: Path, tmp_path: Path, layout: str) -> None:
    references = tmp_path / "references"
    with (place / "out/index.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["output"]]
    names = {"sub-07/T1": "sub-07/T1", "sub-08/T1": "sub-08/T1", "study1": "study1/"}
    for name, part in names.items():
        if layout == "flat" and name != "study1":
            continue
        [row] = [row for row in rows if part in row["input"]]
        target = references / f"{name}.nii.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(place / "out" / row["output"], target)
    (references / "README.txt").write_text("by hand", encoding="utf-8")
    if layout == "tree":
        (references / "study1.nii.gz").unlink()
    for predictions in (place / "out", place / "out/segmentations"):
        result = segmed(
            *("evaluate", "--predictions", predictions, "--references", references),
            *("-o", tmp_path / "scores"),
        )
        assert result.exit_code == 0, result.output
        scores = pd.read_csv(tmp_path / "scores/scores.csv")
        expected = ["study1"] if layout == "flat" else ["sub-07/T1", "sub-08/T1"]
        assert sorted(set(scores["case"])) == expected
        assert (scores["dice"].dropna() == 1.0).all()


def test_reference_that_may_belong_to_two_inputs_is_refused(place: Path) -> None:
    with pytest.raises(UsageError, match="may belong to 2 inputs"):
        prediction_files(place / "out", ["T1"])
    assert prediction_files(place / "out", ["nobody"]) == {}


def test_evaluate_pairs_outputs_of_an_older_version(tmp_path: Path) -> None:
    out, references = tmp_path / "out", tmp_path / "references"
    shutil.copytree(OLDER / "segmentations", out / "segmentations")
    with closing(sqlite3.connect(out / "ledger.sqlite")) as connection:
        connection.executescript((OLDER / "ledger.sql").read_text(encoding="utf-8"))
    rows = json.loads(segmed("archive", "list", out, "--status", "done", "--json").stdout)
    references.mkdir()
    for row in rows:
        shutil.copy(out / row["output"], references / Path(row["input"]).name)
    result = segmed(
        *("evaluate", "--predictions", out, "--references", references, "-o", tmp_path / "s")
    )
    assert result.exit_code == 0, result.output
    scores = pd.read_csv(tmp_path / "s/scores.csv")
    assert set(scores["case"]) == set(label_files(references))
    assert len(set(scores["case"])) == 2


@pytest.mark.parametrize("stray", ["predictions.json", "Thumbs.db", "desktop.ini", "notes"])
def test_stray_files_beside_label_maps_are_passed_over(tmp_path: Path, stray: str) -> None:
    label = nib.Nifti1Image(np.ones((6, 6, 6), np.uint8), np.eye(4))
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
        nib.save(label, tmp_path / side / "case.nii.gz")
        (tmp_path / side / stray).write_text("x", encoding="utf-8")
    result = segmed(
        *("evaluate", "--predictions", tmp_path / "a", "--references", tmp_path / "b"),
        *("-o", tmp_path / "scores"),
    )
    assert result.exit_code == 0, result.output
    assert f"passed over: 1 files beside the references ({stray})" in result.stdout
