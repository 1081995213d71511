"""Structures that a spacing loses are told by check, plan and preparation alike; sizes bounded."""

from __future__ import annotations

import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from segmed.errors import ManifestError
from segmed.io import grid_of
from segmed.manifest import Case, Channel, LabelClass, Manifest, check_manifest
from segmed.manifest.resampled import extents_of, is_at_risk, lost_values, target_of
from segmed.plan import Plan
from segmed.plan.make import make_plan
from segmed.plan.schema import Augmentation, Intensity, Preprocessing, Recipe
from segmed.preprocessing import PreparedCache, prepare, prepare_label
from segmed.training.data import LOST_STRUCTURES, norms_of, warn_of_losses

LABELS = (LabelClass(name="organ", value=1), LabelClass(name="lesion", value=7))


def written(folder: Path, name: str, affine: np.ndarray, label: np.ndarray) -> Case:
    image = np.random.default_rng(len(name)).normal(100, 9, label.shape).astype(np.float32)
    for array, kind in ((image, "image"), (label.astype(np.uint8), "label")):
        nib.save(nib.Nifti1Image(array, affine), folder / f"{name}_{kind}.nii")
    return Case(
        id=name, group=name, image=(f"{name}_image.nii",), label=f"{name}_label.nii", fold=len(name)
    )


def organ(shape: tuple[int, ...]) -> np.ndarray:
    label = np.zeros(shape, np.uint8)
    label[tuple(slice(2, n - 2) for n in shape)] = 1
    return label


@pytest.fixture
def mixed(tmp_path: Path) -> Manifest:
    """Three coarse cases, and a fine one in LPS whose lesion lies between the coarse voxels."""
    coarse = organ((16, 16, 16))
    coarse[8:11, 8:11, 8:11] = 7
    cases = [written(tmp_path, "a" * n, np.diag([2.0, 2.0, 2.0, 1.0]), coarse) for n in (1, 2, 3)]
    fine = organ((64, 64, 64))
    fine[33, 33:35, 33] = 7  # of each four voxels the nearest to a coarse centre is the third
    turned = np.diag([-0.5, -0.5, 0.5, 1.0])
    cases.append(written(tmp_path, "fine", turned, fine))
    return Manifest(
        name="mixed",
        labels=LABELS,
        channels=(Channel(name="T1", modality="MR"),),
        training=tuple(cases),
        root=tmp_path,
    )


def test_check_plan_and_training_tell_the_lost_structure(
    mixed: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notes = [fault for fault in check_manifest(mixed) if fault.code == "lost_structure"]
    assert [(fault.case_id, fault.severity) for fault in notes] == [("fine", "note")]
    assert "lesion (2 voxels)" in notes[0].message
    with caplog.at_level(logging.WARNING):
        plan = make_plan(mixed)
    assert "1 structures of 1 cases" in plan.reasons["resampling"]
    assert "lesion in 1; cases fine" in caplog.text
    caplog.clear()
    prepared = PreparedCache(mixed, plan, tmp_path / "cache").case(mixed.training[3])
    assert prepared.facts.lost == ("lesion",)
    norms = norms_of(mixed, mixed.training, plan, tmp_path / "cache")
    assert norms[LOST_STRUCTURES] == {"lesion": 1}
    warn_of_losses(norms, plan.preprocessing.spacing_mm)
    assert "lesion in 1 cases" in caplog.text


def test_a_set_of_one_spacing_loses_nothing(mixed: Manifest, tmp_path: Path) -> None:
    alike = mixed.model_copy(update={"training": mixed.training[:3]})
    assert not [fault for fault in check_manifest(alike) if fault.code == "lost_structure"]
    plan = make_plan(alike)
    assert "resampling" not in plan.reasons
    assert LOST_STRUCTURES not in norms_of(alike, alike.training, plan, tmp_path / "cache")


@pytest.mark.parametrize("edge_mm", [150.0, 190.0, 0.002])
def test_a_size_out_of_all_bounds_is_an_error_of_check_and_plan(
    mixed: Manifest, tmp_path: Path, edge_mm: float
) -> None:
    label = organ((40, 40, 40))
    odd = written(tmp_path, "odd", np.diag([edge_mm, edge_mm, edge_mm, 1.0]), label)
    spoiled = mixed.model_copy(update={"training": (*mixed.training[:3], odd)})
    faults = [fault for fault in check_manifest(spoiled) if fault.code == "absurd_spacing"]
    assert [(fault.case_id, fault.severity) for fault in faults] == [("odd", "error")]
    assert ("more than" if edge_mm > 1 else "too few") in faults[0].message
    with pytest.raises(ManifestError, match=r"case odd: .* correct the spacing"):
        make_plan(spoiled)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("crop", [False, True])
def test_what_is_foretold_is_what_preparation_loses(seed: int, crop: bool) -> None:
    draw = np.random.default_rng(seed)
    shape = tuple(int(n) for n in draw.integers(9, 22, 3))
    values = np.where(draw.random(shape) < 0.004, draw.integers(1, 7, shape), 0)
    turn = nib.orientations.axcodes2ornt(["RAS", "LPI", "SAR", "PIL"][seed % 4])
    affine = np.linalg.inv(nib.orientations.inv_ornt_aff(turn, shape))
    edges = draw.uniform(0.3, 1.4, 3)
    affine[:3, :3] = affine[:3, :3] @ np.diag(edges)
    voxels = np.zeros((1, *shape), np.float32)
    voxels[:, 2:-3, 1:-2, 3:] = 5.0
    image = MetaTensor(torch.from_numpy(voxels), affine=torch.from_numpy(affine))
    label = MetaTensor(torch.from_numpy(values[None].astype(np.int32)), affine=image.affine)
    plan = plan_of(crop=crop)
    found = prepare_label(label, prepare(image, plan), plan)
    gone = set(np.unique(values).tolist()) - set(found.unique().tolist())
    box = ((2, shape[0] - 3), (1, shape[1] - 2), (3, shape[2])) if crop else None
    grid = grid_of(image)
    target = target_of(grid, (1.0, 1.0, 1.0), box)
    assert set(lost_values(values, target, box)) == gone
    if gone and not crop:
        assert is_at_risk(extents_of(values, range(1, 7)), shape, target)


def plan_of(*, crop: bool) -> Plan:
    return Plan(
        name="tried",
        spatial_dims=3,
        channels=(Channel(name="T1", modality="MR"),),
        labels=tuple(LabelClass(name=f"l{value}", value=value) for value in range(1, 7)),
        preprocessing=Preprocessing(
            spacing_mm=(1.0, 1.0, 1.0), crop_nonzero=crop, intensity=(Intensity(scheme="zscore"),)
        ),
        patch_size=(8, 8, 8),
        networks={},
        recipe=Recipe(augmentation=Augmentation(rotation_deg=(0.0,))),
    )
