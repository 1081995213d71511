"""Spacing of a coarse axis: of images as stored, not of their median alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from published_facts import published_facts

from segmed.manifest import Case, Channel, LabelClass, Manifest
from segmed.plan.coarse_axis import own_grid
from segmed.plan.fingerprint import Fingerprint
from segmed.plan.make import decide_plan, make_plan
from segmed.plan.resources import Resources


@pytest.fixture
def facts() -> Fingerprint:
    """Facts of abdominal CTs, with slices of 5 mm in most cases and of 2 mm in some."""
    _, _, found = published_facts("amos")
    return replace(
        found,
        median_spacing_mm=(0.75, 0.75, 5.0),
        tenth_spacing_mm=(0.6, 0.6, 2.0),
        median_shape=(512.0, 512.0, 80.0),
        median_filled_shape=(512.0, 512.0, 80.0),
    )


def test_coarse_axis_with_few_samples_takes_the_tenth_percentile(facts: Fingerprint) -> None:
    grid = own_grid(facts)
    assert grid.spacing_mm == (0.75, 0.75, 2.0)
    assert grid.growth == (1.0, 1.0, 2.5)
    assert "axis 2 has the 10th percentile of the spacings, 2 mm, instead of the median" in grid.why


@pytest.mark.parametrize(
    "changes",
    [
        {"median_spacing_mm": (0.75, 0.75, 2.2)},  # less than three times
        {"median_shape": (512.0, 512.0, 171.0)},  # a third of the others' samples
        {"tenth_spacing_mm": (0.6, 0.6, 5.0)},
        {"tenth_spacing_mm": ()},  # facts of an earlier version
    ],
)
def test_other_axes_keep_the_median(facts: Fingerprint, changes: dict[str, tuple]) -> None:
    other = replace(facts, **changes)
    grid = own_grid(other)
    assert grid.spacing_mm == other.median_spacing_mm
    assert not grid.why


def test_coarse_axis_never_becomes_finer_than_the_others(facts: Fingerprint) -> None:
    grid = own_grid(replace(facts, tenth_spacing_mm=(0.6, 0.6, 0.4)))
    assert grid.spacing_mm == (0.75, 0.75, 0.75)


def test_axis_that_a_2d_network_walks_along_keeps_the_median(facts: Fingerprint) -> None:
    assert own_grid(facts, slice_axis=2).spacing_mm == facts.median_spacing_mm


def test_plan_of_a_long_training_has_the_finer_axis_and_the_reason(facts: Fingerprint) -> None:
    _, manifest, _ = published_facts("amos")
    resources = Resources(48 * 3600.0, device="cuda")
    plan = decide_plan(manifest, facts, memory_gb=24, size="full", resources=resources)
    assert plan.preprocessing.spacing_mm == (0.75, 0.75, 2.0)
    assert plan.preprocessing.anisotropic_axis is None, "2 mm is less than three times 0.75 mm"
    assert "10th percentile" in plan.reasons["preprocessing.spacing_mm"]
    slices = decide_plan(manifest, facts, spatial_dims=2, size="full", resources=resources)
    assert slices.preprocessing.spacing_mm == (0.75, 0.75, 5.0)


def test_percentile_is_measured_on_the_images(tmp_path: Path, shared_data) -> None:
    """A real volume of which some copies are stored with thinner slices."""
    source = shared_data("msd_spleen_crop")
    image = nib.load(source / "spleen2_ct.nii.gz")
    label = nib.load(source / "spleen2_seg.nii.gz")
    cases = []
    for number in range(4):
        edges = np.array([1.0, 1.0, 0.5 if number == 0 else 1.0, 1.0])
        for stored, kind in ((image, "image"), (label, "label")):
            affine = stored.affine * edges
            data = np.asarray(stored.dataobj)
            nib.save(nib.Nifti1Image(data, affine), tmp_path / f"{number}_{kind}.nii")
        cases.append(
            Case(
                id=f"case{number}", group=str(number), fold=number % 2,
                image=(f"{number}_image.nii",), label=f"{number}_label.nii",
            )
        )  # fmt: skip
    manifest = Manifest(
        name="spleens",
        labels=(LabelClass(name="spleen", value=1),),
        channels=(Channel(name="CT", modality="CT"),),
        training=tuple(cases),
        root=tmp_path,
    )
    found = make_plan(manifest).fingerprint
    assert found["median_spacing_mm"][2] == pytest.approx(5.0, abs=0.01)
    assert found["tenth_spacing_mm"][2] == pytest.approx(
        np.percentile([2.5, 5, 5, 5], 10), abs=0.01
    )
