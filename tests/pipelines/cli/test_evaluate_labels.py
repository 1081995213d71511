"""`segmed evaluate` says which values enter no score, and matches DICOM segments by name."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from tiny_data import write_set
from typer.testing import CliRunner, Result

from pipelines.cli.app import app
from segmed.io import read_image, write_label
from segmed.io.dicom.seg import write_dicom_seg
from segmed.io.dicom.write import write_series
from segmed.manifest import change_values, read_manifest, write_manifest
from segmed.metatensor import MetaTensor
from segmed.structures import LabelClass

SHAPE = (12, 11, 6)


def evaluate(folder: Path, *words: str) -> Result:
    fixed = ["--predictions", str(folder / "predictions"), "--references"]
    fixed += [str(folder / "references"), "-o", str(folder / "out")]
    return CliRunner().invoke(app, ["evaluate", *fixed, *words])


def label_map(*values: int) -> np.ndarray:
    label = np.zeros(SHAPE, np.uint16)
    for place, value in enumerate(values):
        label[3 * place : 3 * place + 2, 2:6, 1:4] = value
    return label


def save(path: Path, label: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(label, np.eye(4)), path)


@pytest.mark.parametrize("odd", [7, 300, 40000])
def test_values_of_predictions_that_are_no_label_are_said(tmp_path: Path, odd: int) -> None:
    for case in ("a", "b"):
        save(tmp_path / f"references/{case}.nii.gz", label_map(1, 2))
    save(tmp_path / "predictions/a.nii.gz", label_map(1, 2))
    save(tmp_path / "predictions/b.nii.gz", label_map(1, 2, odd))
    (tmp_path / "names.json").write_text('{"liver": 1, "spleen": 2}', encoding="utf-8")
    for words in ([], ["--labels", str(tmp_path / "names.json")]):
        result = evaluate(tmp_path, *words)
        assert result.exit_code == 0, result.output
        assert f"the prediction of b has values {odd} (24 voxels) that are not labels" in (
            result.output
        )
        assert "prediction of a" not in result.output
    record = json.loads(evaluate(tmp_path, "--json").stdout)
    assert record["strays"] == [{"case": "b", "side": "prediction", "value": odd, "voxels": 24}]
    assert f"values {odd}" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_values_of_references_that_are_no_label_are_said_as_well(tmp_path: Path) -> None:
    save(tmp_path / "references/a.nii.gz", label_map(1, 2, 9))
    save(tmp_path / "predictions/a.nii.gz", label_map(1, 2))
    (tmp_path / "names.json").write_text('{"liver": 1, "spleen": 2}', encoding="utf-8")
    result = evaluate(tmp_path, "--labels", str(tmp_path / "names.json"))
    assert "the reference of a has values 9 (24 voxels)" in result.output


def test_references_are_read_as_their_manifest_states(tmp_path: Path) -> None:
    manifest = read_manifest(write_set(tmp_path / "set"))
    merged = change_values(manifest, merge={"1,2": "both"})
    path = write_manifest(merged, tmp_path / "set" / "merged.json")
    for case in merged.training:
        label = nib.load(str(merged.label_path(case)))
        stored = np.asarray(label.dataobj)
        save(tmp_path / f"references/{case.id}.nii", stored)
        save(tmp_path / f"predictions/{case.id}.nii", (stored > 0).astype(np.uint8))
    result = evaluate(tmp_path, "--labels", str(path), "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["strays"] == []
    dice = [row for row in record["summary"] if row["metric"] == "dice" and row["label"] == "both"]
    assert dice[0]["mean"] == 1.0


def segmentation(path: Path, image: MetaTensor, label: np.ndarray, *names: str) -> None:
    """A DICOM segmentation whose segments have the numbers of their places."""
    labels = [LabelClass(name=name, value=n) for n, name in enumerate(names, 1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    tensor = torch.from_numpy(label.astype(np.int32))
    write_dicom_seg(path, tensor, like=image, labels=labels, model_name="x", model_version="1")
    dataset = pydicom.dcmread(path)
    for item in dataset.SegmentSequence:
        del item.SegmentDescription
    dataset.save_as(path)


@pytest.mark.parametrize("predicted", [".nii.gz", ".dcm"])
def test_segments_are_matched_by_name(tmp_path: Path, predicted: str) -> None:
    voxels = torch.rand(1, *SHAPE) * 1000
    affine = torch.diag(torch.tensor([-1.0, -1.0, 2.0, 1.0], dtype=torch.float64))
    write_series(tmp_path / "series", MetaTensor(voxels.round(), affine=affine))
    image = read_image(tmp_path / "series")
    segmentation(tmp_path / "references/a.dcm", image, label_map(2, 1), "spleen", "liver")
    if predicted == ".dcm":
        segmentation(tmp_path / "predictions/a.dcm", image, label_map(1, 2), "Liver", "Spleen")
    else:
        (tmp_path / "predictions").mkdir()
        label = torch.from_numpy(label_map(1, 2).astype(np.int32))
        write_label(tmp_path / "predictions/a.nii.gz", label, like=image)
    (tmp_path / "names.json").write_text('{"liver": 1, "spleen": 2}', encoding="utf-8")
    result = evaluate(tmp_path, "--labels", str(tmp_path / "names.json"), "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["summary"]
    dice = {row["label"]: row["mean"] for row in rows if row["metric"] == "dice"}
    assert dice["liver"] == dice["spleen"] == 1.0
    (tmp_path / "names.json").write_text('{"liver": 1, "kidney": 2}', encoding="utf-8")
    refused = evaluate(tmp_path, "--labels", str(tmp_path / "names.json"))
    assert refused.exit_code != 0
    assert "segment 'spleen'" in str(refused.exception).lower() + refused.output.lower()
