"""Exact bounds by hand; promises that hold with their confidence, however thresholds are chosen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from segmed.errors import MetricError
from segmed.quality.binomial import binomial_p_value, fewest_trials, lower_bound, upper_bound
from segmed.quality.risk import RiskTarget, control_risk, fixed_sequence

SHARES = {share: share for share in (0.0, 0.02, 0.04, 0.06, 0.08, 0.1)}
"""Thresholds of a predicted quality that is uniform from 0 to 1."""


def test_bounds_by_hand() -> None:
    assert upper_bound(0, 59, 0.95) == pytest.approx(1 - 0.05 ** (1 / 59))
    assert upper_bound(0, 59, 0.95) <= 0.05 < upper_bound(0, 58, 0.95)
    assert fewest_trials(0.05, 0.95) == 59
    assert upper_bound(3, 3, 0.95) == 1.0
    assert upper_bound(0, 0, 0.95) == 1.0
    assert lower_bound(0, 0, 0.95) == 0.0
    assert lower_bound(5, 5, 0.95) == pytest.approx(0.05 ** (1 / 5))


@pytest.mark.parametrize(("failures", "trials"), [(1, 20), (4, 57), (30, 100)])
def test_bound_is_that_of_scipy_and_the_end_of_the_test(failures: int, trials: int) -> None:
    theirs = stats.binomtest(failures, trials, alternative="less").proportion_ci(0.95, "exact")
    bound = upper_bound(failures, trials, 0.95)
    assert bound == pytest.approx(theirs.high)
    assert binomial_p_value(failures, trials, bound) == pytest.approx(0.05)


def test_sequence_ends_at_the_first_failure() -> None:
    assert fixed_sequence([0.01, 0.05, 0.2, 0.01], 0.05) == 2
    assert fixed_sequence([0.06, 0.01], 0.05) == 0
    assert fixed_sequence([], 0.05) == 0


def test_least_review_that_keeps_the_promise_is_chosen() -> None:
    predicted = np.linspace(0.005, 0.995, 100)
    dice = np.full(100, 0.9)
    dice[[3, 5]] = 0.5  # at 0.035 and 0.055
    target = RiskTarget(review=0.1, risk=0.05, dice=0.8, confidence=0.95)
    bound = control_risk(predicted.tolist(), dice.tolist(), SHARES, target)
    # 0 of 90, 92, 94 pass; 1 of 96 has p = 0.044; at 0.02 and 0 it is 2 of 98: p = 0.13.
    assert bound.is_promised
    assert (bound.review, bound.threshold) == (0.04, 0.04)
    assert (bound.failures, bound.cases) == (1, 96)
    assert bound.upper == pytest.approx(1 - 0.05 ** (1 / 90))
    assert "at 4% review" in bound.sentence


def test_too_few_cases_promise_nothing_and_say_so() -> None:
    predicted = np.linspace(0.005, 0.995, 50).tolist()
    bound = control_risk(predicted, [0.95] * 50, SHARES)
    assert not bound.is_promised
    assert bound.upper == pytest.approx(1 - 0.05 ** (1 / 45))
    assert bound.reason.startswith("45 calibration patients are left at 10% review")
    assert "at least 59" in bound.reason
    assert bound.threshold == 0.1


def test_too_many_failures_promise_nothing_and_say_so() -> None:
    predicted = np.linspace(0.0025, 0.9975, 200).tolist()
    bound = control_risk(predicted, [0.95] * 150 + [0.7] * 50, SHARES)
    assert not bound.is_promised
    assert "50 of 180 calibration patients" in bound.sentence
    assert bound.upper > 50 / 180


def test_a_dice_at_the_limit_is_no_failure() -> None:
    predicted = np.linspace(0.005, 0.995, 100).tolist()
    assert control_risk(predicted, [0.8] * 100, SHARES).is_promised


def test_bad_input_is_refused() -> None:
    with pytest.raises(MetricError, match="one a case"):
        control_risk([0.5], [0.5, 0.6], SHARES)
    with pytest.raises(MetricError, match="not a number"):
        control_risk([float("nan")], [0.5], SHARES)
    with pytest.raises(MetricError, match="no threshold for a review of 10% or less"):
        control_risk([0.5], [0.5], {0.2: 0.3})
    with pytest.raises(MetricError, match="4 failures in 3 trials"):
        upper_bound(4, 3, 0.95)


def test_promises_are_kept_with_their_confidence() -> None:
    """Failure rates at the edge, alike at all thresholds: the worst case for a choice."""
    rng = np.random.default_rng(0)
    target = RiskTarget(review=0.1, risk=0.1, dice=0.8, confidence=0.9)
    trials = broken = promised = 0
    for _ in range(1500):
        predicted = rng.uniform(0.0, 1.0, 150)
        dice = np.where(rng.uniform(size=150) < 0.101, 0.5, 0.9)  # above 0.1 at every threshold
        bound = control_risk(predicted.tolist(), dice.tolist(), SHARES, target)
        trials += 1
        promised += bound.is_promised
        broken += bound.is_promised
    assert promised > 0
    assert stats.binomtest(broken, trials, 0.1, alternative="greater").pvalue > 0.01


def test_the_best_of_all_thresholds_would_break_more_promises_than_allowed() -> None:
    """The same without the order: what the fixed sequence is there for."""
    rng = np.random.default_rng(1)
    broken, trials = 0, 400
    for _ in range(trials):
        predicted = rng.uniform(0.0, 1.0, 150)
        fails = rng.uniform(size=150) < 0.101
        wide = np.linspace(0.0, 0.9, 46)
        p_values = [
            binomial_p_value(int(fails[predicted >= t].sum()), int((predicted >= t).sum()), 0.1)
            for t in wide
        ]
        broken += min(p_values) <= 0.1
        assert fixed_sequence(p_values, 0.1) == 0 or p_values[0] <= 0.1
    assert stats.binomtest(broken, trials, 0.1, alternative="greater").pvalue < 0.001
