"""Patches that pass through a ring on the device are those of cases that stay there, to the bit."""

from __future__ import annotations

from itertools import islice
from math import prod
from pathlib import Path

import pytest
import torch
from test_resident_cases import QUIET, cases_of, plan_of

from segmed.errors import TrainingError
from segmed.manifest import Manifest
from segmed.plan import Augmentation, Plan
from segmed.plan.step_memory import LiveBytes
from segmed.training.data import load_cases, one_ahead
from segmed.training.device import choose_device
from segmed.training.distributed import ProcessGroup
from segmed.training.gathering import gather_patches
from segmed.training.graph_step import GraphStep
from segmed.training.resident import ResidentCases, VoxelStore, patch_rows
from segmed.training.ring import AHEAD, SLOTS, PatchRing, _within, box_voxels
from segmed.training.stepping import voxels_within
from segmed.training.trainer import Trainer

CPU = torch.device("cpu")
KINDS = [
    ((24, 20, 17), (50, 60, 55), None),
    ((16, 16, 16), (18, 12, 40), None),  # smaller than the patch along one axis
    ((24, 31), (70, 80), None),
    ((24, 20), (40, 9, 50), 1),  # slices of a volume
]
WILD = Augmentation(
    flip_axes=(0, 1), rotation_deg=(180.0, 30.0, 15.0), scale=0.5, elastic_mm=3.0, p_spatial=0.9
)


def moving(axes: int, elastic_mm: float = 1.0) -> Augmentation:
    """Changes of position as a plan has them."""
    return Augmentation(
        flip_axes=tuple(range(axes)),
        rotation_deg=(30.0,) * (3 if axes == 3 else 1),
        scale=0.2,
        elastic_mm=elastic_mm,
        p_spatial=0.7,
        **QUIET,
    )


@pytest.mark.parametrize(("patch", "shape", "slice_axis"), KINDS)
def test_patches_of_a_ring_are_those_of_resident_cases(
    patch: tuple[int, ...], shape: tuple[int, ...], slice_axis: int | None
) -> None:
    plan, cases = plan_of(patch, moving(len(patch)), slice_axis), cases_of(shape)
    stores: list[VoxelStore] = [ResidentCases.of(cases, plan, CPU), PatchRing(cases, plan, CPU)]
    for step in range(3 * SLOTS):
        found = []
        for voxels in stores:
            rows = patch_rows(cases, voxels, plan, seed=3, step=step)
            voxels.send(step)
            found.append(gather_patches(voxels, rows.places, rows.floats, plan))
            voxels.used(step)
        for whole, part in zip(*found, strict=True):
            torch.testing.assert_close(part, whole, rtol=0, atol=0)


@pytest.mark.parametrize("seed", [1, 2])
def test_no_draw_needs_more_room_than_a_slot_has(seed: int) -> None:
    plan, cases = plan_of((8, 6, 4), WILD, None), cases_of((60, 60, 60))
    room = box_voxels(cases, plan)
    assert room < min(prod(case.shape) for case in cases)
    seen: list[int] = []

    class Measured(PatchRing):
        def places(self, batch, step):
            seen.extend(
                prod(last - first for first, last in batch.box(n))
                for n in range(len(batch.patches))
            )
            return super().places(batch, step)

    ring = Measured(cases, plan, CPU)
    for step in range(100):
        patch_rows(cases, ring, plan, seed=seed, step=step)
    assert 0.02 * room < max(seen) <= room


@pytest.mark.parametrize(
    ("box", "low", "size"),
    [
        ((-20, -5), 0, 1),
        ((-3, 0), 0, 1),
        ((-3, 4), 0, 4),
        ((2, 7), 2, 5),
        ((6, 30), 6, 4),
        ((10, 12), 9, 1),
        ((15, 40), 9, 1),
    ],
)
def test_a_box_holds_the_border_that_a_gather_names_for_what_lies_beyond(
    box: tuple[int, int], low: int, size: int
) -> None:
    assert _within([box, (0, 5)], (10, 5)) == ((low, 0), (size, 5))
    named = torch.arange(*box).clamp(0, 9)  # as `segmed.training.gathering` clamps positions
    assert int(named.min()) >= low
    assert int(named.max()) < low + size


def test_a_box_beyond_its_slot_is_an_error_not_another_patch() -> None:
    plan, cases = plan_of((8, 6, 4), WILD, None), cases_of((60, 60, 60))
    calm = WILD.model_copy(update={"elastic_mm": 0.0, "scale": 0.0, "rotation_deg": (0.0,) * 3})
    narrow = plan.model_copy(
        update={"recipe": plan.recipe.model_copy(update={"augmentation": calm})}
    )
    ring = PatchRing(cases, narrow, CPU)
    with pytest.raises(TrainingError, match=r"its place has .*elastic_mm"):
        [patch_rows(cases, ring, plan, seed=0, step=step) for step in range(20)]


@pytest.mark.parametrize(("patch", "shape", "slice_axis"), KINDS)
def test_memory_of_a_ring_is_the_stated_one_however_many_cases_there_are(
    patch: tuple[int, ...], shape: tuple[int, ...], slice_axis: int | None
) -> None:
    plan, cases = plan_of(patch, moving(len(patch), 0.1), slice_axis), cases_of(shape)
    stated = PatchRing.num_bytes(cases, plan)
    with LiveBytes() as memory:
        ring = PatchRing(cases, plan, CPU)
    assert ring.image.nbytes + ring.label.nbytes == stated
    assert memory.most == pytest.approx(2 * stated, rel=0.05)  # the pinned half is as large
    assert PatchRing.num_bytes(cases * 50, plan) == stated


def test_resident_cases_never_take_twice_their_memory_on_the_way() -> None:
    plan, cases = plan_of((8, 8, 8), moving(3), None), cases_of((40, 40, 40)) * 5
    stated = ResidentCases.num_bytes(cases, plan)
    with LiveBytes() as memory:
        resident = ResidentCases.of(cases, plan, CPU)
    assert resident.image.nbytes + resident.label.nbytes == stated
    assert memory.most < 1.5 * stated  # the cases themselves are counted as they are read


def test_the_store_is_chosen_by_the_room_beside_a_step() -> None:
    plan, cases = plan_of((8, 8, 8), moving(3), None), cases_of((60, 60, 60)) * 9
    whole, ring = ResidentCases.num_bytes(cases, plan), PatchRing.num_bytes(cases, plan)
    assert ring < whole
    assert isinstance(voxels_within(whole, cases, plan, CPU), ResidentCases)
    assert isinstance(voxels_within(whole - 1, cases, plan, CPU), PatchRing)
    assert isinstance(voxels_within(ring, cases, plan, CPU), PatchRing)
    assert voxels_within(ring - 1, cases, plan, CPU) is None


@pytest.mark.parametrize("first", [0, 5])
def test_a_training_on_a_ring_takes_the_steps_of_one_on_resident_cases(
    manifest: Manifest, plan: Plan, cache_dir: Path, first: int
) -> None:
    """Cases on disk, read ahead by threads; also from the middle, as a resumed training does."""
    cases = load_cases(manifest, manifest.split(0)[0], plan, cache_dir)
    losses = []
    for make in (ResidentCases.of, PatchRing):
        torch.manual_seed(0)
        trainer = Trainer("unet", plan, device=choose_device("cpu"), process_group=ProcessGroup())
        steps = GraphStep(trainer, cases, seed=5, voxels=make(cases, plan, CPU))
        found = []
        for rows in islice(one_ahead(steps.rows, first, ahead=AHEAD), 6):
            steps.take(rows, step=rows.step, progress=0.3)
            found.append(steps.read())
        losses.append(found)
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 6


def test_work_is_made_ahead_in_the_order_of_the_steps() -> None:
    assert list(islice(one_ahead(lambda step: step, 4, ahead=3), 7)) == [*range(4, 11)]
