"""Patches lie where they should, as often as they should, and can be drawn again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from segmed.plan import Plan
from segmed.training.sampling import (
    PatchDraw,
    TrainingCase,
    cut,
    draw_patches,
    patch_in_volume,
    step_generator,
)

SHAPE = (40, 30, 20)


def case_with(points: dict[tuple[int, ...], int], shape: tuple[int, ...] = SHAPE) -> TrainingCase:
    label = torch.zeros(shape, dtype=torch.uint8)
    for place, value in points.items():
        label[place] = value
    return TrainingCase.of("case", torch.randn(1, *shape), label)


def planned(plan: Plan, **recipe: Any) -> Plan:
    changes = {"batch_size": 500, **recipe}
    return plan.model_copy(
        update={"recipe": plan.recipe.model_copy(update=changes), "patch_size": (16, 12, 8)}
    )


def draws(plan: Plan, *cases: TrainingCase, seed: int = 0) -> list[PatchDraw]:
    return draw_patches(cases, plan, step_generator(seed, 0))


@pytest.mark.parametrize("share", [0.0, 0.33, 1.0])
def test_the_share_of_patches_on_foreground_is_the_planned_one(plan: Plan, share: float) -> None:
    """The only foreground voxel is in a corner, where no patch of the rest is centred."""
    case = case_with({(0, 0, 0): 1})
    found = draws(planned(plan, foreground_fraction=share), case)
    on_it = sum(draw.centre == (0, 0, 0) for draw in found) / len(found)
    assert on_it == pytest.approx(share, abs=0.06 if 0 < share < 1 else 0)


def test_centred_patches_lie_within_a_fifth_of_their_size_of_the_middle_of_all_labels(
    plan: Plan,
) -> None:
    case = case_with({(4, 6, 2): 1, (24, 16, 10): 2})
    found = draws(planned(plan, centred_fraction=1.0, foreground_fraction=0.0), case)
    off = np.array([draw.centre for draw in found]) - (14, 11, 6)
    assert np.abs(off).max(axis=0).tolist() == [3, 2, 1]  # 0.2 of (16, 12, 8), rounded down
    assert len(np.unique(off, axis=0)) == 7 * 5 * 3


def test_centred_slices_meet_every_slice_with_labels(plan: Plan) -> None:
    case = case_with({(4, 6, 2): 1, (24, 16, 10): 2})
    sliced = planned(plan, centred_fraction=1.0).model_copy(
        update={"spatial_dims": 2, "patch_size": (12, 8), "slice_axis": 0}
    )
    centres = np.array([draw.centre for draw in draws(sliced, case)])
    assert set(centres[:, 0].tolist()) == set(range(4, 25))
    assert np.abs(centres[:, 1:] - (11, 6)).max(axis=0).tolist() == [2, 1]


def test_the_rest_of_centred_patches_is_drawn_as_without_them(plan: Plan) -> None:
    """The only foreground voxel is in a corner; the middle of all labels is there too."""
    case = case_with({(0, 0, 0): 1})
    found = draws(planned(plan, centred_fraction=0.5, foreground_fraction=1.0), case)
    on_it = sum(draw.centre == (0, 0, 0) for draw in found) / len(found)
    assert on_it == pytest.approx(0.5 + 0.5 / (7 * 5 * 3), abs=0.07)


def test_voxels_that_nobody_annotated_do_not_move_the_middle(plan: Plan) -> None:
    ignoring = planned(plan, centred_fraction=1.0).model_copy(update={"ignore_value": 9})
    index = ignoring.encoding.ignore_index
    assert index is not None
    label = torch.zeros(SHAPE, dtype=torch.uint8)
    label[14, 11, 6] = 1
    label[30:] = index
    case = TrainingCase.of("case", torch.randn(1, *SHAPE), label, ignore_index=index)
    off = np.array([draw.centre for draw in draws(ignoring, case)]) - (14, 11, 6)
    assert np.abs(off).max() == 3


def test_centred_patches_of_a_case_without_labels_come_from_anywhere(plan: Plan) -> None:
    found = draws(planned(plan, centred_fraction=1.0), case_with({}))
    assert len({draw.centre for draw in found}) > 100


def test_a_rare_class_is_drawn_as_often_as_a_frequent_one(plan: Plan) -> None:
    case = case_with({(0, 0, 0): 2})
    label = case.label.clone()
    label[10:30, 10:20, 5:15] = 1
    case = TrainingCase.of("case", case.image, label)
    found = draws(planned(plan, foreground_fraction=1.0), case)
    rare = sum(draw.centre == (0, 0, 0) for draw in found) / len(found)
    assert rare == pytest.approx(0.5, abs=0.07)


def test_a_patch_not_on_foreground_lies_inside_the_volume_and_reaches_every_border(
    plan: Plan,
) -> None:
    small = planned(plan, foreground_fraction=0.0, batch_size=3000)
    patch = np.array(small.patch_size)
    starts = np.array([draw.centre for draw in draws(small, case_with({}))]) - patch // 2
    assert (starts >= 0).all()
    assert (starts + patch <= SHAPE).all()
    assert starts.min(axis=0).tolist() == [0, 0, 0]
    assert (starts + patch).max(axis=0).tolist() == list(SHAPE)


def test_a_volume_smaller_than_the_patch_lies_wholly_in_it(plan: Plan) -> None:
    case = case_with({}, shape=(5, 7, 3))
    for draw in draws(planned(plan, foreground_fraction=0.0, batch_size=20), case):
        box = cut(case.image, draw.centre, (16, 12, 8), fill=-9.0)
        assert box.shape == (1, 16, 12, 8)
        assert int((box != -9.0).sum()) == 5 * 7 * 3


def test_every_case_is_equally_likely(plan: Plan) -> None:
    few, many = case_with({(1, 1, 1): 1}), case_with({(2, 2, 2): 1, (3, 3, 3): 2})
    found = draws(planned(plan), few, many)
    assert sum(draw.case == 0 for draw in found) / len(found) == pytest.approx(0.5, abs=0.07)


def test_a_case_without_foreground_gives_patches_from_anywhere(plan: Plan) -> None:
    found = draws(planned(plan, foreground_fraction=1.0), case_with({}))
    assert len({draw.centre for draw in found}) > 100


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slicewise_patch_is_one_voxel_thick_and_meets_every_slice(plan: Plan, axis: int) -> None:
    flat = planned(plan, foreground_fraction=0.0, batch_size=1000).model_copy(
        update={"patch_size": (8, 6), "slice_axis": axis, "spatial_dims": 2}
    )
    expected = [8, 6]
    expected.insert(axis, 1)
    assert patch_in_volume(flat, 3) == tuple(expected)
    assert patch_in_volume(flat, 2) == (8, 6)
    centres = np.array([draw.centre for draw in draws(flat, case_with({}))])
    assert set(centres[:, axis]) == set(range(SHAPE[axis]))


def test_a_step_draws_the_same_patches_again_and_another_step_others(plan: Plan) -> None:
    case, small = case_with({(4, 4, 4): 1}), planned(plan, batch_size=8)
    assert draw_patches([case], small, step_generator(3, 7)) == draw_patches(
        [case], small, step_generator(3, 7)
    )
    assert draw_patches([case], small, step_generator(3, 7)) != draw_patches(
        [case], small, step_generator(3, 8)
    )
    assert draw_patches([case], small, step_generator(3, 7)) != draw_patches(
        [case], small, step_generator(4, 7)
    )


def test_a_box_within_the_volume_is_cut_where_it_lies() -> None:
    volume = torch.arange(4 * 5 * 6).reshape(4, 5, 6)
    assert torch.equal(cut(volume, (2, 2, 3), (2, 3, 2), fill=0.0), volume[1:3, 1:4, 2:4])


def test_beyond_the_border_a_box_is_filled_with_the_smallest_value() -> None:
    volume = torch.tensor([5.0, 6.0, 7.0])[None]
    assert cut(volume, (0,), (4,), fill=5.0).tolist() == [[5.0, 5.0, 5.0, 6.0]]
    assert cut(volume, (2,), (4,), fill=0.0).tolist() == [[5.0, 6.0, 7.0, 0.0]]
    assert cut(volume, (90,), (2,), fill=0.0).tolist() == [[0.0, 0.0]]
