"""Area under the risk-coverage curve of predicted quality beside single features, with its error.

The areas are means over the splits of `quality_splits`. The splits share their patients, so the
error of a difference of two areas is that of a bootstrap of patients: all cases of a patient are
drawn together, in all splits alike, and both scores are judged on the same draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segmed.quality.fitting import QualityCase, score_of
from segmed.quality.model import QualityModel
from segmed.quality.risk_coverage import risk_coverage

if TYPE_CHECKING:
    from tests.benchmarks.quality_splits import Split

DRAWS = 1000
CONFIDENCE = 0.95
LACKING = -1e9
"""Score of a case whose result lacks a structure."""

RIVALS = ("entropy", "pairwise_dice")
"""Scores that predicted quality is to be as good as."""

Numbers = npt.NDArray[np.float64]
Score = Callable[[QualityModel, QualityCase], float]


def aurcs(splits: Sequence[Split], draws: int = DRAWS) -> dict[str, Any]:
    """Mean areas, and the differences of predicted quality from each rival.

    A single feature is that of the structure which has the worst. `against` has for each rival the
    difference of the areas, negative where predicted quality is better, its 95 % interval, and
    two verdicts: `is_best`, the difference is not above zero, and `is_as_good`, it is not above
    zero beyond its error.
    """
    scores: dict[str, Score] = {
        "predicted_quality": score_of,
        "entropy": lambda _, case: _lowest(case, "entropy", -1.0),
        "expected_dice": lambda _, case: _lowest(case, "expected_dice"),
        "no_order": lambda _model, _case: 0.0,
    }
    if all("agreement" in row for split in splits for row in _rows(split)):
        scores["pairwise_dice"] = lambda _, case: _lowest(case, "agreement")
    areas = {name: areas_of(splits, score) for name, score in scores.items()}
    found: dict[str, Any] = {name: round(float(area.mean()), 5) for name, area in areas.items()}
    drawn = {name: drawn_areas(splits, scores[name], draws)
             for name in ("predicted_quality", *RIVALS) if name in scores}  # fmt: skip
    found["against"] = {
        name: _against(areas["predicted_quality"] - areas[name],
                       drawn["predicted_quality"] - drawn[name])
        for name in RIVALS if name in areas
    }  # fmt: skip
    return found


def _against(difference: Numbers, drawn: Numbers) -> dict[str, Any]:
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(drawn, [tail, 100.0 - tail])
    mean = float(difference.mean())
    return {
        "difference": round(mean, 5),
        "low": round(float(low), 5),
        "high": round(float(high), 5),
        "is_best": bool(mean <= 0.0),
        "is_as_good": bool(mean <= 0.0 or low <= 0.0),
    }


def areas_of(splits: Sequence[Split], score: Score) -> Numbers:
    """Area of each split."""
    return np.array(
        [
            risk_coverage(
                [score(split.model, case) for case in split.new],
                [1.0 - case.lowest_dice for case in split.new],
            ).aurc
            for split in splits
        ]
    )


def drawn_areas(splits: Sequence[Split], score: Score, draws: int) -> Numbers:
    """Mean area over the splits for each draw of patients; every score has the same draws."""
    names = sorted({case.group for split in splits for case in split.new})
    place = {name: number for number, name in enumerate(names)}
    rng = np.random.default_rng(0)
    counts = rng.multinomial(len(names), np.full(len(names), 1.0 / len(names)), draws)
    areas = []
    for split in splits:
        weights = counts[:, [place[case.group] for case in split.new]]
        sure = np.array([score(split.model, case) for case in split.new])
        loss = np.array([1.0 - case.lowest_dice for case in split.new])
        areas.append(counted_areas(sure, loss, weights))
    return np.nanmean(areas, axis=0)


def counted_areas(confidence: Numbers, risk: Numbers, counts: npt.NDArray[np.int64]) -> Numbers:
    """Area of cases that are there several times, as `risk_coverage` of the repeated cases.

    Args:
        confidence: Of each case.
        risk: Of each case.
        counts: How often each is there, `[draws, cases]`.

    Returns:
        One area a draw; not a number for a draw without a case.
    """
    _, block = np.unique(-confidence, return_inverse=True)
    order = np.argsort(block, kind="stable")
    block, counts = block[order], counts[:, order]
    is_of = block[:, None] == np.arange(block.max() + 1)
    number = counts @ is_of
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nan_to_num((counts * risk[order]) @ is_of / number)[:, block]
    before = np.cumsum(counts, axis=1) - counts
    loss = np.cumsum(counts * mean, axis=1) - counts * mean
    total = np.zeros(len(counts))
    for copy in range(1, int(counts.max(initial=0)) + 1):
        curve = (loss + copy * mean) / (before + copy)
        total += np.where(counts >= copy, curve, 0.0).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(total / counts.sum(axis=1))


def _rows(split: Split) -> list[dict[str, float]]:
    return [row for case in split.new for row in case.features.values() if row]


def _lowest(case: QualityCase, name: str, sign: float = 1.0) -> float:
    """A feature of the worst structure; a case that lacks a structure is among the worst of all."""
    if not all(case.features.values()):
        return LACKING
    return min(sign * row[name] for row in case.features.values())
