"""Promised coverage and risk over 200 random splits of recorded out-of-fold cases; AURC.

The cases are plain numbers in `hippocampus_cases.json`; `make_hippocampus_cases.py` made them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from segmed.quality.cases import read_quality_cases
from segmed.quality.fitting import QualityCase, StructureTruth, fit_quality, score_of
from segmed.quality.model import QualityModel
from segmed.quality.risk import RiskTarget
from segmed.quality.risk_coverage import risk_coverage
from segmed.quality.statements import volume_intervals

SPLITS = 200
CALIBRATED = 110
"""Cases of a split that the model is fitted and calibrated on; the other 50 are new."""

Splits = list[tuple[QualityModel, list[QualityCase]]]

TARGET = RiskTarget(review=0.2, risk=0.12, dice=0.75, confidence=0.8)


@cache
def cases_of(name: str, folder: Path) -> tuple[QualityCase, ...]:
    content = json.loads(
        Path(__file__).with_name("hippocampus_cases.json").read_text(encoding="utf-8")
    )
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content[name]), encoding="utf-8")
    return tuple(read_quality_cases(path).values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cases")


@pytest.fixture(scope="module")
def recorded(folder: Path) -> Callable[[str], tuple[QualityCase, ...]]:
    return lambda name: cases_of(name, folder)


@cache
def splits(name: str, folder: Path) -> Splits:
    cases = cases_of(name, folder)
    rng, found = np.random.default_rng(0), []
    for seed in range(SPLITS):
        order = rng.permutation(len(cases))
        known = [cases[place] for place in order[:CALIBRATED]]
        model = fit_quality(known, basis="held_out", seed=seed)
        assert model is not None
        found.append((model, [cases[place] for place in order[CALIBRATED:]]))
    return found


def volumes_of(case: QualityCase) -> dict[str, float]:
    return {label: truth.predicted_ml for label, truth in case.truth.items()}


@pytest.fixture(scope="module", params=["one_network", "three_networks"])
def split(request: pytest.FixtureRequest, folder: Path) -> Splits:
    return splits(request.param, folder)


def test_intervals_of_dice_and_volume_are_kept_as_promised(split: Splits) -> None:
    """Mean coverage of 200 splits; each has 50 new cases, which the splits share."""
    shares: dict[str, list[float]] = {}
    for model, new in split:
        kept: dict[str, list[bool]] = {}
        for case in new:
            for item in model.predict(case.features, volumes_of(case)).structures:
                truth = case.truth[item.label]
                assert item.low is not None
                assert item.volume_low_ml is not None
                kept.setdefault(f"dice {item.label}", []).append(
                    item.low <= truth.dice <= item.high
                )
                kept.setdefault(f"volume {item.label}", []).append(
                    item.volume_low_ml <= truth.reference_ml <= item.volume_high_ml
                )
        for name, values in kept.items():
            shares.setdefault(name, []).append(float(np.mean(values)))
    for name, values in shares.items():
        # 55 calibration cases: coverage is beta distributed around ceil(56 * 0.9) / 56 = 0.911.
        assert 0.88 < np.mean(values) < 0.94, name
        new, calibrated = 50, 55
        worst = stats.betabinom(new, 51, calibrated + 1 - 51).ppf(0.005) / new
        assert np.mean(np.array(values) < worst) < 0.03, name


def test_promised_risk_is_broken_no_more_often_than_promised(split: Splits) -> None:
    """A promise is broken where the new cases show more failures than its rate allows."""
    promised = broken = 0
    for model, new in split:
        bound = model.bound(TARGET)
        if not bound.is_promised:
            continue
        promised += 1
        accepted = [case for case in new if score_of(model, case) >= bound.threshold]
        failures = sum(case.lowest_dice < TARGET.dice for case in accepted)
        broken += failures > stats.binom.ppf(0.95, len(accepted), TARGET.risk)
    assert promised > 0
    allowed = 1.0 - TARGET.confidence + 0.05
    assert stats.binomtest(broken, SPLITS, allowed, alternative="greater").pvalue > 0.01


def test_bound_at_the_requested_review_is_kept_with_its_confidence(split: Splits) -> None:
    """Failures among new cases against the upper bound, which needs no promise to pass."""
    broken = 0
    for model, new in split:
        bound = model.bound(TARGET)
        first = dict(model.thresholds)[TARGET.review]
        accepted = [case for case in new if score_of(model, case) >= first]
        failures = sum(case.lowest_dice < TARGET.dice for case in accepted)
        broken += failures > stats.binom.ppf(0.95, len(accepted), bound.upper)
    allowed = 1.0 - TARGET.confidence + 0.05
    assert stats.binomtest(broken, SPLITS, allowed, alternative="greater").pvalue > 0.01


def aurcs(split: Splits, of: Callable[[QualityModel, QualityCase], float]) -> np.ndarray:
    return np.array(
        [
            risk_coverage(
                [of(model, case) for case in new], [1.0 - case.lowest_dice for case in new]
            ).aurc
            for model, new in split
        ]
    )


def lowest(name: str, sign: float = 1.0) -> Callable[[QualityModel, QualityCase], float]:
    return lambda _, case: min(sign * row[name] for row in case.features.values())


def test_aurc_is_below_that_of_entropy_and_of_expected_dice(split: Splits) -> None:
    own = aurcs(split, score_of)
    assert own.mean() < aurcs(split, lowest("entropy", -1.0)).mean()
    assert own.mean() < aurcs(split, lowest("expected_dice")).mean()


def test_aurc_is_that_of_pairwise_dice_or_better(folder: Path) -> None:
    split = splits("three_networks", folder)
    difference = aurcs(split, score_of) - aurcs(split, lowest("agreement"))
    reach = aurcs(split, lambda _, case: 0.0).mean() - aurcs(split, lowest("agreement")).mean()
    # Within 2 % of what pairwise Dice gains over no order: rounding may choose other penalties.
    assert difference.mean() < 0.02 * reach


def test_few_patients_earn_no_interval_and_no_promise(
    recorded: Callable[[str], tuple[QualityCase, ...]],
) -> None:
    cases = recorded("one_network")
    assert fit_quality(cases[:2], basis="held_out") is None
    model = fit_quality(cases[:10], basis="held_out")
    assert model is not None
    found = model.predict(cases[20].features, volumes_of(cases[20]))
    assert all(item.low is None and item.volume_low_ml is None for item in found.structures)
    assert found.structures[0].reason == (
        "5 calibration patients have it; an interval of 90% needs 9"
    )
    assert "at least 59" in model.bound().reason
    wide = model.predict(cases[20].features, volumes_of(cases[20]), coverage=0.8)
    assert all(item.low is not None for item in wide.structures)


def test_an_absent_structure_has_the_chance_of_its_absence(
    recorded: Callable[[str], tuple[QualityCase, ...]],
) -> None:
    cases = list(recorded("one_network"))
    model = fit_quality(cases, basis="held_out")
    assert model is not None
    gone = {"anterior": {}, "posterior": cases[0].features["posterior"]}
    found = model.predict(gone, {"anterior": 0.0, "posterior": 1.5})
    assert found.score == found.structures[0].dice == 0.0  # never seen absent: review it first
    assert found.structures[0].low is None
    assert "absent" in found.structures[0].reason
    right = {"anterior": StructureTruth(math.nan, 0.0, 0.0)}
    often = [
        replace(c, features={**c.features, "anterior": {}}, truth={**c.truth, **right})
        if place % 2
        else c
        for place, c in enumerate(cases)
    ]
    model = fit_quality(often, basis="held_out")
    assert model is not None
    assert model.predict(gone, {"anterior": 0.0, "posterior": 1.5}).structures[0].dice > 0.95


def test_a_reference_without_the_structure_makes_volumes_unbounded(
    recorded: Callable[[str], tuple[QualityCase, ...]],
) -> None:
    cases = [
        replace(c, truth={**c.truth, "anterior": StructureTruth(0.0, 1.0, 0.0)})
        for c in recorded("one_network")
    ]
    model = fit_quality(cases, basis="held_out")
    assert model is not None
    anterior, posterior = model.predict(cases[0].features, volumes_of(cases[0])).structures
    assert anterior.volume_high_ml is None
    assert posterior.volume_high_ml is not None
    assert model.structures[0].volume_errors[-1] is None


def test_models_are_plain_numbers_and_the_order_of_cases_is_nothing(
    recorded: Callable[[str], tuple[QualityCase, ...]],
) -> None:
    cases = recorded("three_networks")
    model = fit_quality(cases, basis="out_of_fold", networks=3)
    assert model is not None
    text = json.dumps(model.model_dump(mode="json"), allow_nan=False)
    assert QualityModel.model_validate(json.loads(text)) == model
    assert not any(case.group in text for case in cases if len(case.group) > 3)
    assert model.fitted + model.calibrated == len(cases)
    assert model.missing_features(cases[0].features) == []
    bare = {label: {"expected_dice": 0.8} for label in cases[0].features}
    assert "agreement" in model.missing_features(bare)


def test_volumes_with_intervals_are_given_to_reports(
    recorded: Callable[[str], tuple[QualityCase, ...]],
) -> None:
    cases = recorded("one_network")
    model = fit_quality(cases, basis="held_out")
    assert model is not None
    quality = model.predict(cases[0].features, volumes_of(cases[0]))
    found = volume_intervals(quality.record())
    assert found.keys() == {"anterior", "posterior"}
    assert found["anterior"].low_ml == pytest.approx(quality.structures[0].volume_low_ml, rel=1e-5)
    assert found["anterior"].sentence.endswith("ml (90% interval)")
    record = quality.record()
    record["structures"]["anterior"] |= {"volume_low_ml": None, "volume_high_ml": None}
    assert volume_intervals(record).keys() == {"posterior"}
    assert volume_intervals(None) == {}
