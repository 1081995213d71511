"""Predicted quality beside local scores: intervals, the rule of review, the bound, the figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from segmed.acceptance.bound import ReviewRule, state_bound
from segmed.acceptance.calibration import PredictedCase, PredictedDice, calibrate
from segmed.acceptance.criteria import BoundTerms
from segmed.report.quality_figures import calibration_svg, risk_coverage_svg

CASES = 80
NOISE = 0.03


def site(seed: int, *, bias: float = 0.0) -> tuple[pd.DataFrame, dict[str, PredictedCase]]:
    """Scores of one structure, and 90 % intervals that are right unless there is a bias."""
    rng = np.random.default_rng(seed)
    dice = np.clip(rng.normal(0.88, 0.06, CASES), 0.3, 0.99)
    table = pd.DataFrame(
        {
            "case": [f"c{i}" for i in range(CASES)],
            "label": "anterior",
            "is_region": False,
            "dice": dice,
            "both_empty": False,
        }
    )
    reach = 1.645 * NOISE
    guesses = dice + rng.normal(0, NOISE, CASES) + bias
    predicted = {
        case: PredictedCase(
            guess, 0.9, {"anterior": PredictedDice(guess, guess - reach, guess + reach)}
        )
        for case, guess in zip(table["case"], guesses, strict=True)
    }
    return table, predicted


def patients_of(table: pd.DataFrame) -> dict[str, str]:
    return {case: case for case in table["case"]}


def test_right_intervals_are_no_finding_and_biased_ones_are() -> None:
    short = 0
    for seed in range(20):
        table, predicted = site(seed)
        found = calibrate(table, patients_of(table), predicted)
        assert found is not None
        short += found.rows[0].is_short
    assert short <= 1
    table, predicted = site(0, bias=0.05)
    found = calibrate(table, patients_of(table), predicted)
    assert found is not None
    assert found.rows[0].is_short
    assert found.rows[0].bias == pytest.approx(0.05, abs=0.02)
    assert "intervals of anterior contain the local Dice, 90% are stated" in found.rows[0].sentence


def test_order_by_a_good_prediction_has_less_risk_than_a_random_one() -> None:
    table, predicted = site(1)
    found = calibrate(table, patients_of(table), predicted)
    assert found is not None
    assert found.curve.best_aurc <= found.curve.aurc < found.curve.random_aurc
    assert len(found.points) == CASES


def test_one_case_of_a_patient_counts_for_the_intervals() -> None:
    table, predicted = site(2)
    pairs = {case: f"p{number // 2}" for number, case in enumerate(table["case"])}
    found = calibrate(table, pairs, predicted)
    assert found is not None
    assert found.rows[0].n == CASES // 2


def test_without_predictions_or_intervals_nothing_is_claimed() -> None:
    table, predicted = site(3)
    assert calibrate(table, patients_of(table), {}) is None
    bare = {
        case: PredictedCase(one.score, 0.9, {"anterior": PredictedDice(one.score)})
        for case, one in predicted.items()
    }
    found = calibrate(table, patients_of(table), bare)
    assert found is not None
    assert (found.rows[0].n, found.rows[0].p_holm, found.rows[0].is_short) == (0, None, False)


def test_bound_is_of_the_unreviewed_and_a_broken_promise_withdraws_it() -> None:
    table, predicted = site(4)
    patients, terms = patients_of(table), BoundTerms(dice=0.8)
    scores = {case: one.score for case, one in predicted.items()}
    everybody = state_bound(table, patients, terms, ())
    rule = ReviewRule(0.82, 0.1, 0.05, scores)
    unreviewed = state_bound(table, patients, terms, (), rule)
    assert everybody.reviewed is None
    assert unreviewed.patients + (unreviewed.reviewed or 0) == everybody.patients
    assert unreviewed.bad < everybody.bad
    assert unreviewed.upper < everybody.upper
    assert not unreviewed.withdrawn
    broken = ReviewRule(0.0, 0.1, 0.02, scores)
    (reason,) = state_bound(table, patients, terms, (), broken).withdrawn
    assert "promise of the package does not hold here" in reason


def test_case_without_a_prediction_is_reviewed() -> None:
    table, predicted = site(5)
    scores = {case: one.score for case, one in list(predicted.items())[1:]}
    found = state_bound(
        table, patients_of(table), BoundTerms(), (), ReviewRule(0.0, 0.1, None, scores)
    )
    assert found.reviewed == 1


def test_bound_by_hand() -> None:
    table, _ = site(6)
    table["dice"] = 0.9
    found = state_bound(table, patients_of(table), BoundTerms(dice=0.8), ())
    assert found.upper == pytest.approx(1 - 0.05 ** (1 / CASES))  # none of n: Clopper and Pearson


def test_figures_state_the_areas() -> None:
    table, predicted = site(7)
    found = calibrate(table, patients_of(table), predicted)
    assert found is not None
    assert f"AURC {found.curve.aurc:.4f}" in risk_coverage_svg(found.curve)
    assert calibration_svg(found.points).count("<use") >= CASES // 2
