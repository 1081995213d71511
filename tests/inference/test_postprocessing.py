"""Cleaning of label maps, on maps drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segmed.errors import UsageError
from segmed.inference import Predictor
from segmed.inference.postprocessing import (
    Cleaning,
    clean,
    cleaned,
    components_in,
    steps_of,
    with_steps,
)
from segmed.metatensor import MetaTensor
from segmed.plan import Inference, plan_hash

MAP = np.array(
    [
        [1, 1, 1, 0, 2, 0, 1],
        [1, 0, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 2, 2, 0],
    ],
    dtype=np.uint8,
)


def test_only_the_largest_component_of_a_label_stays() -> None:
    expected = MAP.copy()
    expected[0, 6] = 0
    np.testing.assert_array_equal(clean(MAP, [Cleaning("keep_largest", 1)]), expected)


def test_plan_names_the_labels_of_which_the_largest_component_stays() -> None:
    expected = MAP.copy()
    expected[0, 4] = 0
    np.testing.assert_array_equal(cleaned(MAP, Inference(keep_largest=(2,))), expected)
    assert cleaned(MAP, Inference()) is MAP


def test_small_components_go_and_those_of_the_named_size_stay() -> None:
    expected = MAP.copy()
    expected[0, 4] = 0
    np.testing.assert_array_equal(clean(MAP, [Cleaning("remove_small", 2, 2)]), expected)


def test_holes_are_filled_with_background_only() -> None:
    ring = np.pad(MAP[:, :3], 1)
    filled = clean(ring, [Cleaning("fill_holes", 1)])
    assert filled[2, 2] == 1
    assert filled.sum() == ring.sum() + 1
    ring[2, 2] = 2
    np.testing.assert_array_equal(clean(ring, [Cleaning("fill_holes", 1)]), ring)


def test_label_that_is_absent_changes_nothing() -> None:
    for step in ("keep_largest", "remove_small", "fill_holes"):
        np.testing.assert_array_equal(clean(MAP, [Cleaning(step, 9, 5)]), MAP)


def test_given_map_is_never_written_to() -> None:
    before = MAP.copy()
    clean(MAP, [Cleaning("keep_largest", 1), Cleaning("remove_small", 2, 9)])
    np.testing.assert_array_equal(MAP, before)


def test_plan_asks_for_small_components_and_holes_too() -> None:
    rules = Inference(remove_small={2: 2}, fill_holes=(1,))
    again = Inference.model_validate_json(rules.model_dump_json())
    assert steps_of(again) == [Cleaning("remove_small", 2, 2), Cleaning("fill_holes", 1)]
    found = cleaned(np.pad(MAP, 1), again)
    assert found[1, 5] == 0
    assert found[2, 2] == 1
    assert (found[3, 5:7] == 2).all()


def test_steps_join_the_rules_that_a_plan_has() -> None:
    before = Inference(overlap=0.25, fill_holes=(2,), remove_small={1: 9})
    steps = [
        Cleaning("keep_largest", 1),
        Cleaning("remove_small", 2, min_ml=0.5),
        Cleaning("fill_holes", 1),
    ]
    assert with_steps(before, steps) == Inference(
        overlap=0.25,
        keep_largest=(1,),
        remove_small={1: 9},
        remove_small_ml={2: 0.5},
        fill_holes=(2, 1),
    )
    assert with_steps(before, []) == before


@pytest.mark.parametrize(
    ("spacing_mm", "stays"), [((1.0, 1.0, 1.0), False), ((1.0, 1.0, 3.0), True)]
)
def test_size_in_millilitres_depends_on_the_voxels(
    spacing_mm: tuple[float, ...], *, stays: bool
) -> None:
    volume = MAP[:, :, None]
    rules = Inference(remove_small_ml={2: 0.002})  # two voxels of a cubic millimetre
    found = cleaned(volume, rules, spacing_mm=spacing_mm)
    assert bool(found[0, 4, 0]) is stays
    assert (found[2, 4:6, 0] == 2).all()


def test_size_in_millilitres_is_refused_where_nothing_has_a_volume(make_plan) -> None:
    rules = Inference(remove_small_ml={2: 0.002})
    with pytest.raises(UsageError, match="from volumes only; state the size in pixels"):
        cleaned(MAP, rules, spacing_mm=(1.0, 1.0))
    flat = {"spatial_dims": 2, "spacing_mm": (1.0, 1.0), "patch": (32, 32)}
    with pytest.raises(ValueError, match=r"inference\.remove_small_ml is for volumes"):
        make_plan(**flat, inference=rules)
    assert make_plan(**flat, inference=rules, slice_axis=2).inference == rules


def test_empty_rule_in_millilitres_leaves_the_hash_of_a_plan_as_it_was(make_plan) -> None:
    plan = make_plan()
    assert "remove_small_ml" not in plan.model_dump(mode="json")["inference"]
    other = make_plan(inference=Inference(remove_small_ml={2: 0.5}))
    assert plan_hash(other) != plan_hash(plan)


def test_predictor_removes_components_by_their_millilitres(make_plan, make_package) -> None:
    image = MetaTensor(
        torch.rand(1, 24, 24, 24, generator=torch.Generator().manual_seed(1)),
        affine=torch.diag(torch.tensor([2.0, 1.0, 1.5, 1.0], dtype=torch.float64)),
    )
    raw = Predictor(make_package(make_plan()), engine="torch", device="cpu").predict(image)
    sizes = [components_in(np.asarray(raw.label)[0] == value)[1] for value in (2, 5)]
    value, found = max(zip((2, 5), sizes, strict=True), key=lambda pair: len(pair[1]))
    assert len(found) > 2, "the untrained network gives many components"
    middle = int(np.sort(found)[len(found) // 2])
    rules = Inference(remove_small_ml={value: middle * 3e-3})
    plan = make_plan(inference=rules)
    after = Predictor(make_package(plan), engine="torch", device="cpu").predict(image)
    left = components_in(np.asarray(after.label)[0] == value)[1]
    assert sorted(left) == sorted(size for size in found if size >= middle)
