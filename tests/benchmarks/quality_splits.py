"""Promised coverage and risk over random splits of recorded out-of-fold cases, and AURC.

Splits divide patients, never the cases of one. A set with few patients earns intervals of less than
90 % only: the level is the largest of `LEVELS` that the smallest calibration of a split can state.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from segmed.quality.cases import read_quality_cases
from segmed.quality.conformal import fewest_cases
from segmed.quality.fitting import QualityCase, fit_quality, score_of
from segmed.quality.model import QualityModel
from segmed.quality.risk import RiskTarget
from tests.benchmarks.quality_aurc import aurcs

SPLITS = 200
KNOWN_SHARE = 0.75
"""Share of the patients that a split fits and calibrates on."""

LEVELS = (0.9, 0.8, 0.7)
TARGET = RiskTarget(review=0.2, risk=0.12, dice=0.75, confidence=0.8)


@dataclass(frozen=True)
class Split:
    """A model of the known patients, and the cases of the others."""

    model: QualityModel
    new: tuple[QualityCase, ...]


def read_recorded(path: Path) -> dict[str, tuple[QualityCase, ...]]:
    """Cases by network, of a file of `quality_recording` or of the tests' hippocampus file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    tables = content.get("cases", content)
    found = {}
    with tempfile.TemporaryDirectory(prefix="segmed-recorded-") as scratch:
        for name, cases in tables.items():
            place = Path(scratch) / "cases.json"
            place.write_text(json.dumps(cases), encoding="utf-8")
            found[name] = tuple(read_quality_cases(place).values())
    return found


def make_splits(cases: Sequence[QualityCase], number: int = SPLITS) -> list[Split]:
    """Random splits by patient, each with a model of its own."""
    groups = sorted({case.group for case in cases})
    known, found = round(KNOWN_SHARE * len(groups)), []
    rng = np.random.default_rng(0)
    for seed in range(number):
        chosen = {groups[place] for place in rng.permutation(len(groups))[:known]}
        model = fit_quality(
            [case for case in cases if case.group in chosen], basis="held_out", seed=seed
        )
        if model is None:
            raise SystemExit(f"{len(groups)} patients are too few to fit predicted quality")
        new = tuple(case for case in cases if case.group not in chosen)
        found.append(Split(model, new))
    return found


def level_of(splits: Sequence[Split]) -> float:
    """Largest level of intervals that every split can state, if any of them does."""
    fewest = min(split.model.calibrated for split in splits)
    return next((level for level in LEVELS if fewest_cases(level) <= fewest), LEVELS[-1])


def judged(cases: dict[str, tuple[QualityCase, ...]], number: int = SPLITS) -> dict[str, Any]:
    """Coverage, risk and AURC of every table of a set, as JSON values."""
    return {name: _judged(table, number) for name, table in cases.items()}


def _judged(cases: Sequence[QualityCase], number: int) -> dict[str, Any]:
    splits = make_splits(cases, number)
    level, patients = level_of(splits), len({case.group for case in cases})
    return {
        "cases": len(cases),
        "patients": patients,
        "splits": len(splits),
        "calibrated": [f([s.model.calibrated for s in splits]) for f in (min, max)],
        "level": level,
        "coverage": coverage(splits, level, patients),
        "risk": risk(splits),
        "aurc": aurcs(splits),
    }


def coverage(splits: Sequence[Split], level: float, patients: int) -> dict[str, dict[str, Any]]:
    """Mean coverage of the intervals of Dice and of volume of each structure over the splits.

    The splits share the patients, so the error is that of a share of all of them.
    """
    kept: dict[str, list[float]] = {}
    for split in splits:
        shares: dict[str, list[bool]] = {}
        for case in split.new:
            volumes = {label: truth.predicted_ml for label, truth in case.truth.items()}
            found = split.model.predict(case.features, volumes, coverage=level)
            for item in found.structures:
                truth = case.truth[item.label]
                if item.low is not None and item.high is not None and not math.isnan(truth.dice):
                    inside = item.low <= truth.dice <= item.high
                    shares.setdefault(f"dice {item.label}", []).append(inside)
                if item.volume_low_ml is not None and item.volume_high_ml is not None:
                    inside = item.volume_low_ml <= truth.reference_ml <= item.volume_high_ml
                    shares.setdefault(f"volume {item.label}", []).append(inside)
        for name, values in shares.items():
            kept.setdefault(name, []).append(float(np.mean(values)))
    error = math.sqrt(level * (1.0 - level) / patients)
    return {
        name: {
            "mean": round(float(np.mean(values)), 4),
            "splits": len(values),
            "error": round(error, 4),
            "is_kept": bool(np.mean(values) >= level - 2.0 * error),
        }
        for name, values in sorted(kept.items())
    }


def risk(splits: Sequence[Split], target: RiskTarget = TARGET) -> dict[str, Any]:
    """Promises and upper bounds that the new cases break beyond binomial error.

    The new cases break a rate if they have more failures than the 95 % quantile at that rate. So a
    sound bound is broken with a probability of at most 1 - confidence + 5 %.
    """
    promised = broken = exceeded = 0
    for split in splits:
        bound = split.model.bound(target)
        promised += bound.is_promised
        if bound.is_promised:
            broken += _breaks(split, bound.threshold, target, target.risk)
        first = dict(split.model.thresholds)[target.review]
        exceeded += _breaks(split, first, target, bound.upper)
    allowed = 1.0 - target.confidence + 0.05
    p_values = [
        float(stats.binomtest(count, len(splits), allowed, alternative="greater").pvalue)
        for count in (broken, exceeded)
    ]
    return {
        "target": target.sentence,
        "promised": promised,
        "broken": broken,
        "bounds_exceeded": exceeded,
        "allowed_share": allowed,
        "is_kept": min(p_values) > 0.01,
    }


def _breaks(split: Split, threshold: float, target: RiskTarget, rate: float) -> bool:
    accepted = [case for case in split.new if score_of(split.model, case) >= threshold]
    failures = sum(case.lowest_dice < target.dice for case in accepted)
    return bool(failures > stats.binom.ppf(0.95, len(accepted), rate))
