"""Conformal quantiles against crepes and by hand; coverage by patient."""

from __future__ import annotations

import math

import numpy as np
import pytest
from crepes import ConformalRegressor
from scipy import stats

from segmed.errors import MetricError
from segmed.quality.conformal import conformal_quantile, fewest_cases, one_of_each, split_groups


@pytest.mark.parametrize("number", [10, 23, 57, 138])
@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9])
def test_quantile_is_that_of_crepes(number: int, coverage: float) -> None:
    # Not where (n + 1) * 0.8 is whole: crepes rounds 2 down to 1.99, and gives the next wider one.
    rng = np.random.default_rng(number)
    residuals = rng.normal(0.0, 0.1, number)
    theirs = ConformalRegressor().fit(residuals=residuals)
    interval = theirs.predict_int(np.array([0.8]), confidence=coverage)[0]
    half = conformal_quantile(np.abs(residuals).tolist(), coverage)
    np.testing.assert_allclose(interval, [0.8 - half, 0.8 + half])


def test_scores_relative_to_a_difficulty_are_those_of_crepes() -> None:
    rng = np.random.default_rng(1)
    residuals, sigmas = rng.normal(0.0, 0.1, 60), rng.uniform(0.05, 0.5, 60)
    theirs = ConformalRegressor().fit(residuals=residuals, sigmas=sigmas)
    interval = theirs.predict_int(np.array([0.8]), sigmas=np.array([0.3]), confidence=0.9)[0]
    half = 0.3 * conformal_quantile((np.abs(residuals) / sigmas).tolist(), 0.9)
    np.testing.assert_allclose(interval, [0.8 - half, 0.8 + half])


def test_rank_by_hand() -> None:
    scores = [0.5, 0.1, 0.4, 0.2, 0.3, 0.9, 0.6, 0.8, 0.7]
    assert conformal_quantile(scores, 0.9) == 0.9  # ceil(10 * 0.9) = 9, the largest of nine
    assert conformal_quantile(scores, 0.5) == 0.5
    assert conformal_quantile(scores, 0.91) == math.inf  # no tenth score
    assert conformal_quantile([], 0.5) == math.inf


@pytest.mark.parametrize(("coverage", "number"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19)])
def test_fewest_cases_are_the_first_with_a_finite_bound(coverage: float, number: int) -> None:
    assert fewest_cases(coverage) == number
    assert conformal_quantile([1.0] * number, coverage) == 1.0
    assert conformal_quantile([1.0] * (number - 1), coverage) == math.inf


def test_infinite_scores_count_and_missing_ones_are_refused() -> None:
    assert conformal_quantile([0.1] * 8 + [math.inf], 0.9) == math.inf
    with pytest.raises(MetricError, match="not a number"):
        conformal_quantile([0.1, math.nan], 0.5)
    with pytest.raises(MetricError, match="above 0 and below 1"):
        conformal_quantile([0.1], 1.0)


def test_one_case_of_each_patient_is_drawn() -> None:
    groups = ["b", "a", "b", "c", "a", "a"]
    drawn = one_of_each(groups, seed=3)
    assert sorted(groups[place] for place in drawn) == ["a", "b", "c"]
    assert {tuple(one_of_each(groups, seed=seed)) for seed in range(50)} > {tuple(drawn)}
    assert one_of_each(["p1", "p2"]).tolist() == [0, 1]


def test_no_patient_is_on_both_sides_of_a_split() -> None:
    groups = [f"patient{number // 2}" for number in range(30)]
    for seed in range(20):
        marked = split_groups(groups, 1 / 3, seed=seed)
        inside = {g for g, is_marked in zip(groups, marked, strict=True) if is_marked}
        assert len(inside) == 5
        assert marked.sum() == 10


def test_patients_with_two_cases_are_covered_as_promised() -> None:
    """Errors shared by the cases of a patient: ranks over cases would promise too much."""
    rng = np.random.default_rng(0)
    trials, covered = 2000, 0
    for _ in range(trials):
        patients = rng.normal(0.0, 1.0, 10)
        scores = np.abs(np.repeat(patients, 2) + rng.normal(0.0, 0.01, 20))
        groups = [number // 2 for number in range(20)]
        calibration = scores[one_of_each(groups)][:-1]
        covered += scores[-1] <= conformal_quantile(calibration.tolist(), 0.9)
    assert stats.binomtest(covered, trials, 0.9, alternative="less").pvalue > 0.01
