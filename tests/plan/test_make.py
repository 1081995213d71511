"""Plans of real image sets: each decision follows the facts, and says why."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segmed.errors import UsageError
from segmed.manifest import Case, Channel, LabelClass, Manifest, build_manifest, read_manifest
from segmed.plan import Plan, to_yaml
from segmed.plan.make import make_plan
from segmed.plan.resources import Resources

Shared = Callable[[str], Path]


def one_case(image: Path, label: Path, channel: Channel) -> Manifest:
    """A manifest of one real case."""
    case = Case(id="a", group="a", image=(image.name,), label=label.name, fold=0)
    return Manifest(
        name="set",
        labels=(LabelClass(name="structure", value=1),),
        channels=(channel,),
        training=(case,),
        root=image.parent,
    )


@pytest.fixture(scope="module")
def rasters(shared_data: Shared) -> Manifest:
    manifest = build_manifest(shared_data("isbi2012"))
    return manifest.model_copy(update={"training": manifest.training[:6]})


@pytest.fixture(scope="module")
def sample(sample_manifest_path: Path) -> Manifest:
    manifest = read_manifest(sample_manifest_path)
    return manifest.model_copy(update={"training": manifest.training[:8]})


@pytest.fixture
def spleen(shared_data: Shared) -> Manifest:
    folder = shared_data("msd_spleen_crop")
    ct = Channel(name="CT", modality="CT")
    return one_case(folder / "spleen2_ct.nii.gz", folder / "spleen2_seg.nii.gz", ct)


def test_rasters_get_a_2d_plan_and_no_3d_one(rasters: Manifest) -> None:
    plan = make_plan(rasters)
    assert (plan.spatial_dims, plan.slice_axis, plan.preprocessing.orientation) == (2, None, "")
    assert len(plan.patch_size) == 2
    with pytest.raises(UsageError, match="two-dimensional"):
        make_plan(rasters, spatial_dims=3)


def test_few_thick_slices_are_segmented_one_by_one(shared_data: Shared) -> None:
    folder = shared_data("sct_spine") / "mt"
    spine = one_case(folder / "mt1.nii.gz", folder / "mt1_seg.nii.gz", Channel(name="MT"))
    plan = make_plan(spine)
    assert (plan.spatial_dims, plan.slice_axis) == (2, 2)
    assert "20.1 times longer" in plan.reasons["spatial_dims"]
    assert make_plan(spine, spatial_dims=3).spatial_dims == 3


def test_ct_is_scaled_by_its_foreground_and_its_coarse_axis_resampled_apart(
    spleen: Manifest, shared_data: Shared
) -> None:
    plan = make_plan(spleen, resources=Resources(1e6))  # time enough for the images' own grid
    folder = shared_data("msd_spleen_crop")
    voxels = nib.load(folder / "spleen2_ct.nii.gz").get_fdata()
    inside = voxels[nib.load(folder / "spleen2_seg.nii.gz").get_fdata() > 0]
    (rule,) = plan.preprocessing.intensity
    assert rule.scheme == "ct"
    assert rule.mean == pytest.approx(inside.mean(), abs=1.0)
    assert (rule.low, rule.high) == pytest.approx(np.percentile(inside, [0.5, 99.5]), abs=4.0)
    assert plan.preprocessing.anisotropic_axis == 2
    assert plan.networks["unet"].options["kernels"][0] == [3, 3, 1]


def test_three_channels_of_a_dicom_set_are_planned_together(shared_data: Shared) -> None:
    plan = make_plan(build_manifest(shared_data("pgbm")))
    assert plan.in_channels == len(plan.preprocessing.intensity) == 3
    assert plan.preprocessing.anisotropic_axis == 2


def test_black_borders_are_cropped_and_left_out_of_sizes_and_statistics(
    spleen: Manifest, tmp_path: Path
) -> None:
    shape, box = (60, 64, 40), (slice(10, 42), slice(20, 60), slice(4, 36))
    image, label = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
    image[box] = np.random.default_rng(0).uniform(1, 2, image[box].shape)
    label[20:30, 30:40, 10:20] = 1
    for name, array in (("image.nii.gz", image), ("label.nii.gz", label)):
        made = nib.Nifti1Image(array, np.eye(4))
        made.set_sform(np.eye(4), code=1)
        nib.save(made, tmp_path / name)
    padded = one_case(tmp_path / "image.nii.gz", tmp_path / "label.nii.gz", Channel(name="MR"))
    plan = make_plan(padded, size="full")
    assert plan.preprocessing.crop_nonzero
    assert plan.preprocessing.intensity[0].nonzero
    assert plan.fingerprint["median_filled_shape"] == [32, 40, 32]
    assert plan.patch_size == (32, 40, 32)
    assert not make_plan(spleen).preprocessing.crop_nonzero


def test_memory_bounds_patch_and_batch_of_full_networks(sample: Manifest) -> None:
    def voxels(plan: Plan) -> int:
        return prod(plan.patch_size) * plan.recipe.batch_size

    small, large = (make_plan(sample, size="full", memory_gb=gb) for gb in (0.5, 24))
    assert voxels(small) < voxels(large)
    assert small.patch_size < large.patch_size
    assert voxels(large) <= max(0.06 * 8 * 35 * 50 * 36, 2 * prod(large.patch_size))
    assert make_plan(sample, memory_gb=24).recipe.batch_size == 2  # small: steps, not batches
    with pytest.raises(UsageError, match="too little"):
        make_plan(sample, size="full", memory_gb=1e-4)
    with pytest.raises(UsageError, match="must be positive"):
        make_plan(sample, memory_gb=0)


def test_bias_correction_is_an_option_for_mr_alone(sample: Manifest, spleen: Manifest) -> None:
    plan = make_plan(sample, bias_correction=True)
    assert plan.preprocessing.bias_correction
    assert "on T1" in plan.reasons["preprocessing.bias_correction"]
    assert not make_plan(sample).preprocessing.bias_correction
    with pytest.raises(UsageError, match="modality MR"):
        make_plan(spleen, bias_correction=True)


@pytest.mark.parametrize(
    "field",
    ["spatial_dims", "orientation", "spacing_mm", "image_order", "crop_nonzero", "intensity",
     "bias_correction", "patch_size", "networks", "batch_size", "foreground_fraction",
     "ema_decay", "flip_axes", "rotation_deg"],
)  # fmt: skip
def test_each_choice_is_explained_where_it_stands(sample: Manifest, field: str) -> None:
    lines = to_yaml(make_plan(sample)).splitlines()
    at = next(i for i, line in enumerate(lines) if line.strip().startswith(f"{field}:"))
    assert lines[at - 1].strip().startswith("# ")
