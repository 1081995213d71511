"""Cleaning of label maps, on maps drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest

from segmed.inference.postprocessing import (
    Cleaning,
    clean,
    cleaned,
    dice_of,
    steps_of,
    validate,
    with_helpful,
)
from segmed.plan import Inference

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
        np.testing.assert_array_equal(clean(MAP, [Cleaning(step, 9, 5)]), MAP)  # type: ignore[arg-type]


def test_given_map_is_never_written_to() -> None:
    before = MAP.copy()
    clean(MAP, [Cleaning("keep_largest", 1), Cleaning("remove_small", 2, 9)])
    np.testing.assert_array_equal(MAP, before)


def test_step_is_kept_only_where_it_helps_out_of_fold() -> None:
    truth = MAP.copy()
    truth[0, 6] = 0
    steps = [Cleaning("keep_largest", 1), Cleaning("keep_largest", 2)]
    helpful, harmful = validate([(MAP, truth)] * 3, steps, score=dice_of)
    assert helpful.helps
    assert dice_of(MAP, truth, 1) == 16 / 17
    assert helpful.before == pytest.approx(16 / 17)
    assert helpful.after == 1.0
    assert not harmful.helps
    assert harmful.worse == 3


def test_step_that_spoils_one_case_in_five_is_not_kept() -> None:
    truth = MAP.copy()
    truth[0, 6] = 0
    cases = [(MAP, truth)] * 4 + [(MAP, MAP)]
    (verdict,) = validate(cases, [Cleaning("keep_largest", 1)], score=dice_of)
    assert verdict.after > verdict.before
    assert verdict.worse == 1
    assert not verdict.helps


def test_plan_asks_for_small_components_and_holes_too() -> None:
    rules = Inference(remove_small={2: 2}, fill_holes=(1,))
    again = Inference.model_validate_json(rules.model_dump_json())
    assert steps_of(again) == [Cleaning("remove_small", 2, 2), Cleaning("fill_holes", 1)]
    found = cleaned(np.pad(MAP, 1), again)
    assert found[1, 5] == 0
    assert found[2, 2] == 1
    assert (found[3, 5:7] == 2).all()


def test_rules_keep_exactly_the_steps_that_helped_out_of_fold() -> None:
    truth = MAP.copy()
    truth[0, 6] = 0
    before = Inference(overlap=0.25, fill_holes=(2,))
    candidates = steps_of(Inference(keep_largest=(1, 2), remove_small={1: 2}, fill_holes=(1,)))
    rules = with_helpful(before, validate([(MAP, truth)] * 3, candidates, score=dice_of))
    assert rules == Inference(overlap=0.25, keep_largest=(1,))
