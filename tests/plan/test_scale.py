"""Spacing and patch of six real sets: structures fit, and time and memory move them."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest
import torch
from real_facts import SETS, real_facts

from segmed.errors import UsageError
from segmed.plan import Plan
from segmed.plan.make import decide_plan
from segmed.plan.networks import Size
from segmed.plan.resources import Resources
from segmed.training.device import Device
from segmed.training.memory import estimate_step_bytes

CPU = Device(torch.device("cpu"), None, "a CPU")
GPU = Device(torch.device("cuda", 0), torch.bfloat16, "a GPU, which nothing here runs on")
FIVE_MINUTES = Resources(300.0, clock="cpu")
THIN = ("isbi2012", "chase_db1")
"""Sets whose structures, or the membranes between them, are a few voxels thick."""


def planned(
    name: str,
    resources: Resources | None = FIVE_MINUTES,
    *,
    size: Size = "small",
    memory_gb: float = 8.0,
) -> Plan:
    manifest, facts = real_facts(name)
    return decide_plan(manifest, facts, size=size, memory_gb=memory_gb, resources=resources)


def covered_mm(plan: Plan) -> np.ndarray:
    axes = [a for a in range(len(plan.preprocessing.spacing_mm)) if a != plan.slice_axis]
    return np.array(plan.patch_size) * np.array(plan.preprocessing.spacing_mm)[axes]


@pytest.mark.parametrize("name", ["left_atrium", "hippocampus", "cardiac_mr"])
@pytest.mark.parametrize("seconds", [120.0, 300.0, 1800.0, 14_400.0])
def test_a_patch_covers_the_structures_whole(name: str, seconds: float) -> None:
    plan = planned(name, Resources(seconds, clock="cpu"))
    axes = [a for a in range(3) if a != plan.slice_axis]
    extent = np.array(plan.fingerprint["structure_extent_mm"])[:, axes].max(axis=0)
    fov = np.multiply(plan.fingerprint["median_shape"], plan.fingerprint["median_spacing_mm"])
    assert (covered_mm(plan) >= 0.9 * np.minimum(extent, fov[axes])).all()


@pytest.mark.parametrize("name", SETS)
def test_more_time_never_means_coarser_images_or_a_smaller_view(name: str) -> None:
    plans = [planned(name, Resources(60.0 * 4**n, clock="cpu")) for n in range(6)]
    edges = [min(plan.preprocessing.spacing_mm) for plan in plans]
    assert edges == sorted(edges, reverse=True)
    assert edges[-1] >= min(plans[0].fingerprint["median_spacing_mm"])


def test_a_short_training_takes_coarse_images_and_says_why() -> None:
    hour, five = planned("left_atrium", Resources(36_000.0)), planned("left_atrium")
    assert min(five.preprocessing.spacing_mm) > 2 * 0.625
    assert min(hour.preprocessing.spacing_mm) < min(five.preprocessing.spacing_mm)
    why = five.reasons["preprocessing.spacing_mm"]
    for part in (
        "coarser than 0.625x0.625x0.625 mm",
        "300 CPU s on 1 CPU core",
        "steps",
        "--budget",
    ):
        assert part in why
    patch = five.reasons["patch_size"]
    for part in ("116x69.4x42.5 mm", "121x89.4x55 mm", "300 CPU s", "8 GB"):
        assert part in patch
    assert five.planned_for == FIVE_MINUTES.as_record()


@pytest.mark.parametrize("name", [*THIN, "hippocampus"])
def test_thin_structures_keep_the_spacing_of_the_images(name: str) -> None:
    for seconds in (60.0, 300.0, 14_400.0):
        plan = planned(name, Resources(seconds, clock="cpu"))
        assert plan.preprocessing.spacing_mm == pytest.approx(plan.fingerprint["median_spacing_mm"])
    assert "no coarser one promises" in plan.reasons["preprocessing.spacing_mm"]


@pytest.mark.parametrize("seconds", [300.0, 1800.0, 14_400.0])
def test_a_patch_shows_all_of_many_structures_as_finely_as_time_allows(seconds: float) -> None:
    time = Resources(seconds, clock="cpu"), Resources(seconds / 5, clock="cpu")
    plan, shorter = (planned("brain_many_labels", one, memory_gb=32.0) for one in time)
    assert (covered_mm(plan) >= 0.9 * np.array(plan.fingerprint["labels_extent_mm"])).all()
    assert plan.recipe.centred_fraction == 0.8
    assert "in its place in the whole" in plan.reasons["recipe.centred_fraction"]
    assert min(shorter.preprocessing.spacing_mm) > min(plan.preprocessing.spacing_mm)


def test_many_structures_get_wide_outputs_and_a_higher_rate_few_do_not() -> None:
    many, few = planned("brain_many_labels"), planned("left_atrium")
    for name, width in (("unet", 16), ("unetpp", 16), ("unet3plus", 16), ("fcn8s", 16)):
        assert many.networks[name].options["widths"][0] == width
        assert many.networks[name].learning_rate > few.networks[name].learning_rate
    assert few.networks["unet"].options["widths"][0] == 8
    assert few.recipe.centred_fraction == 0.0
    gpu = planned("brain_many_labels", Resources(3600.0, device="cuda"), size="full")
    assert gpu.networks["unet"].learning_rate == few.networks["unet"].learning_rate


def test_plans_without_the_box_of_all_labels_are_decided_as_before_it_was_measured() -> None:
    manifest, facts = real_facts("brain_many_labels")
    older = replace(facts, labels_extent_mm=())
    plan = decide_plan(manifest, older, memory_gb=8.0, resources=FIVE_MINUTES)
    assert plan.recipe.centred_fraction == 0.0
    assert plan.patch_size != planned("brain_many_labels").patch_size


def test_a_coarse_axis_stays_while_the_fine_ones_become_coarser() -> None:
    plan = planned("cardiac_mr", Resources(20.0, clock="cpu"))
    assert plan.preprocessing.spacing_mm[2] == 10.0
    assert plan.preprocessing.spacing_mm[0] == plan.preprocessing.spacing_mm[1] > 1.5
    assert plan.preprocessing.anisotropic_axis == 2


def test_a_faster_device_gives_finer_images_and_more_memory_larger_patches() -> None:
    cpu, gpu = planned("left_atrium"), planned("left_atrium", Resources(300.0, device="cuda"))
    assert min(gpu.preprocessing.spacing_mm) < min(cpu.preprocessing.spacing_mm)
    little, much = (planned("left_atrium", None, size="full", memory_gb=gb) for gb in (2.0, 40.0))
    assert min(much.preprocessing.spacing_mm) <= min(little.preprocessing.spacing_mm)
    assert (covered_mm(much) > covered_mm(little)).all()
    assert "none was stated" in much.reasons["patch_size"]


def test_sizes_in_other_units_give_the_same_voxels() -> None:
    """Ten times the voxel edge and ten times the structure: nothing differs but the unit."""
    manifest, facts = real_facts("left_atrium")
    names = ("median_spacing_mm", "structure_extent_mm", "structure_thickness_mm")
    larger = replace(facts, **{n: _times(10.0, getattr(facts, n)) for n in names})
    one, ten = (decide_plan(manifest, f, resources=FIVE_MINUTES) for f in (facts, larger))
    assert one.patch_size == ten.patch_size
    assert np.multiply(10, one.preprocessing.spacing_mm) == pytest.approx(
        ten.preprocessing.spacing_mm, rel=0.01
    )


def _times(factor: float, value: object) -> object:
    return (
        tuple(_times(factor, item) for item in value)
        if isinstance(value, tuple)
        else factor * value
    )


@pytest.mark.parametrize("name", SETS)
def test_every_architecture_trains_within_the_memory(name: str) -> None:
    small, full = planned(name, Resources(14_400.0, clock="cpu")), planned(name, None, size="full")
    for plan, device in ((small, CPU), (full, GPU)):
        for architecture in plan.networks:
            need = estimate_step_bytes(
                architecture, plan, batch_size=plan.recipe.batch_size, device=device
            )
            assert need <= 8e9, (architecture, plan.patch_size, need)


def test_patches_stay_useful_where_the_time_is_very_short() -> None:
    for name in SETS:
        plan = planned(name, Resources(1.0, clock="cpu"))
        assert prod(plan.patch_size) >= 4 ** len(plan.patch_size)
        assert set(plan.networks) >= {"fcn8s", "unet", "unetpp", "unet3plus", "deeplabv3plus"}


@pytest.mark.parametrize("values", [{"seconds": 0.0}, {"seconds": 10.0, "cores": 0}])
def test_no_time_and_no_core_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="needs a positive time and at least one core"):
        Resources(**values)
