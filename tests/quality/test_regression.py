"""Linear prediction of Dice: an order from few cases, corrections from many."""

from __future__ import annotations

import numpy as np
import pytest

from segmed.quality.case_features import AGREEMENT, ENTROPY, EXPECTED_DICE
from segmed.quality.regression import (
    Examples,
    confidence_weights,
    fit_structures,
)

NAMES = (EXPECTED_DICE, ENTROPY, "odd", AGREEMENT)
CONFIDENCE = confidence_weights(NAMES, 4)


def made(
    rng: np.random.Generator, number: int, *, odd: float = 0.0, offset: float = 0.0
) -> Examples:
    """Cases whose Dice follows from an unknown quality that three features show with noise."""
    quality = rng.normal(size=number)
    shown = [quality + rng.normal(size=number) * 0.5 for _ in range(3)]
    other = rng.normal(size=number)
    dice = 0.8 + offset + 0.05 * quality + odd * other + rng.normal(size=number) * 0.02
    design = np.column_stack([shown[0], -shown[1], other, shown[2]])
    return Examples(design, dice, [str(n) for n in range(number)])


def test_confidence_is_the_mean_of_two_features_in_their_known_directions() -> None:
    assert CONFIDENCE.tolist() == [0.0, -0.5, 0.0, 0.5]
    assert confidence_weights((EXPECTED_DICE, ENTROPY, "odd"), 4).tolist() == [0.5, -0.5, 0.0, 0.0]


def test_few_cases_have_unit_weights_and_many_learn_what_else_matters() -> None:
    rng = np.random.default_rng(0)
    (few,) = fit_structures([made(rng, 9)], CONFIDENCE)
    assert few.weights[3] == pytest.approx(-few.weights[1], rel=0.3)
    assert abs(few.weights[2]) < 0.2 * few.weights[3]
    (many,) = fit_structures([made(rng, 300, odd=0.05)], CONFIDENCE)
    assert many.weights[2] > 0.03


def test_order_of_new_cases_by_few_known_ones_is_better_than_by_any_one_feature() -> None:
    rng, own, single = np.random.default_rng(1), [], []
    for _ in range(60):
        (fit,) = fit_structures([made(rng, 9)], CONFIDENCE)
        new = made(rng, 200)
        own.append(np.corrcoef(new.design @ fit.weights, new.dice)[0, 1])
        single.append([abs(np.corrcoef(column, new.dice)[0, 1]) for column in new.design.T])
    assert np.mean(own) > np.mean(single, axis=0).max() + 0.03


def test_left_out_predictions_are_those_of_fits_without_the_patient() -> None:
    one = made(np.random.default_rng(2), 8)
    (fit,) = fit_structures([one], CONFIDENCE)
    for place in range(8):
        rest = [n for n in range(8) if n != place]
        part = Examples(one.design[rest], one.dice[rest], [str(n) for n in rest])
        (other,) = fit_structures([part], CONFIDENCE)
        alone = other.intercept + float(one.design[place] @ other.weights)
        assert fit.left_out[place] == pytest.approx(alone, abs=0.01)
        assert abs(fit.left_out[place] - one.dice[place]) > 1e-4, "its own Dice did not enter"


def test_structures_that_differ_are_offset_and_equal_ones_are_not() -> None:
    rng = np.random.default_rng(3)
    apart = fit_structures([made(rng, 12), made(rng, 12, offset=-0.2)], CONFIDENCE)
    assert apart[0].intercept - apart[1].intercept == pytest.approx(0.2, abs=0.05)
    alike = fit_structures([made(rng, 12), made(rng, 12)], CONFIDENCE)
    assert abs(alike[0].intercept - alike[1].intercept) < 0.03


def test_cases_without_an_order_and_structures_without_cases_are_borne() -> None:
    none = Examples(np.zeros((0, 4)), np.zeros(0), [])
    flat = Examples(np.zeros((3, 4)), np.array([0.7, 0.8, 0.9]), ["a", "b", "c"])
    empty, level = fit_structures([none, flat], CONFIDENCE)
    assert len(empty.left_out) == 0
    assert level.intercept == pytest.approx(0.8)
    assert (level.weights @ CONFIDENCE) > 0
    (nothing,) = fit_structures([none], CONFIDENCE)
    assert nothing.intercept == 0.0
