"""300 structures from label files to segmentations: no value wraps into that of another."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_data import CHANNELS, tiny_plan

from segmed.errors import UsageError
from segmed.evaluation import evaluate
from segmed.inference import Predictor, predict_files
from segmed.io import read_label
from segmed.manifest import Case, LabelClass, Manifest, census_lines, read_manifest, write_manifest
from segmed.package import ModelPackage
from segmed.plan import Plan, make_plan
from segmed.training import Budget, train

NUMBER = 300
SIDE = 16
LABELS = tuple(LabelClass(name=f"s{value}", value=value) for value in range(1001, 1001 + NUMBER))
"""Values above 255, and class indices above 255."""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Cases in which each structure has voxels; the image's grey value says which."""
    folder = tmp_path_factory.mktemp("many")
    cases = []
    for number in range(4):
        index = np.arange(SIDE**3).reshape(SIDE, SIDE, SIDE) * (NUMBER + 1) // SIDE**3
        index = np.roll(index, number, axis=1)
        label = np.where(index > 0, index + 1000, 0).astype(np.uint16)
        for kind, array in (("image", index.astype(np.float32)), ("label", label)):
            nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"c{number}_{kind}.nii")
        files = {"image": (f"c{number}_image.nii",), "label": f"c{number}_label.nii"}
        cases.append(Case(id=f"c{number}", group=f"c{number}", fold=number % 2, **files))
    made = Manifest(
        name="many", labels=LABELS, channels=CHANNELS, training=tuple(cases), root=folder
    )
    return read_manifest(write_manifest(made, folder / "many.json"))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan.model_validate(tiny_plan(steps=2).model_dump() | {"labels": LABELS})


@pytest.fixture(scope="module")
def package(
    manifest: Manifest, plan: Plan, tmp_path_factory: pytest.TempPathFactory
) -> ModelPackage:
    """Trained for two steps, then given a last layer that is right: class k where the grey is k."""
    out = tmp_path_factory.mktemp("trained")
    return train(
        manifest, plan, architecture="unet", fold=0, budget=Budget(epochs=1), out=out, device="cpu"
    )


class Ramp(torch.nn.Module):
    """Logits by which the most probable class of a voxel is its standardised grey value."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.register_buffer("classes", torch.arange(NUMBER + 1.0).view(1, -1, 1, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return -10.0 * (image * self.std + self.mean - self.classes).abs()


def test_predictions_have_the_values_of_all_structures(
    manifest: Manifest, package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert census_lines(manifest) == []
    grey = np.asarray(nib.load(manifest.root / "c0_image.nii").dataobj)
    ramp = Ramp(float(grey.mean()), float(grey.std()))
    monkeypatch.setattr(ModelPackage, "build", lambda self: ramp)
    predictor = Predictor(package, device="cpu", engine="torch")
    [outcome] = predict_files(predictor, [manifest.root / "c0_image.nii"], tmp_path / "out")
    assert outcome.output is not None
    found = read_label(outcome.output).numpy()[0]
    truth = np.asarray(nib.load(manifest.root / "c0_label.nii").dataobj)
    np.testing.assert_array_equal(found, truth)
    assert set(np.unique(found)) == {0, *range(1001, 1001 + NUMBER)}
    assert nib.load(outcome.output).get_data_dtype() == np.uint16


def test_all_structures_are_trained_validated_and_scored(
    manifest: Manifest, package: ModelPackage, tmp_path: Path
) -> None:
    saved = ModelPackage.load(package.save(tmp_path / "package"))
    assert saved.plan.num_classes == NUMBER + 1
    table = evaluate(saved, manifest, fold=0, device="cpu").table
    assert set(table["label"]) == {label.name for label in LABELS}
    assert len(table) == 2 * NUMBER
    assert (table["voxels_reference"] > 0).all()


def test_more_classes_than_memory_holds_are_refused_by_name(manifest: Manifest) -> None:
    with pytest.raises(UsageError, match=r"0\.005 GB is too little .* of 301 classes.*--merge"):
        make_plan(manifest, memory_gb=0.005)
