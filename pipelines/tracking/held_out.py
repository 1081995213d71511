"""Scores on cases kept out of training, in the form stored with a package and its card.

Cases are never named here: packages, cards and trackers go to places where a name must not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from pipelines.tracking.tags import DICE_TAG, DOUBT_TAG, HELD_OUT
from segmed.metrics import summarise
from segmed.metrics.learned import LEARNED_DICE, doubt_of_learning
from segmed.metrics.score import MEAN_LABEL
from segmed.metrics.summary import COUNTS, RECORDED_METRICS
from segmed.package import ModelPackage

KEPT_STATISTICS = ("mean", "ci_low", "ci_high", "std")
"""Statistics that are kept of each metric."""

KEPT_COUNTS = ("n", *COUNTS)
"""Counts that are kept for each structure."""

DOUBT = "nothing_learned"
"""Key of the kept scores that says why they are no sign of learning."""

WORST = 5
"""Failure cases that are kept."""


def held_out_scores(
    table: pd.DataFrame, folds: Sequence[int] = (), *, unit: str = "mm"
) -> dict[str, Any]:
    """Collect the scores of the held-out cases.

    Args:
        table: One row a case and structure, as from `segmed.metrics.scores_table`.
        folds: Folds that were held out; several where several trainings were scored.
        unit: Unit of distances: `px` for images without a spacing, which is then kept as `unit`.

    Returns:
        JSON values: `cases`, `folds`, `structures` (by name: counts, and statistics of each metric;
        `mean` averages the structures of a case first), `failures`, the worst rows first, and
        `nothing_learned`, a reason, where the scores are no sign of learning.
    """
    doubt = doubt_of_learning(table)
    structures: dict[str, dict[str, Any]] = {}
    for row in summarise(table).to_dict("records"):
        found = structures.setdefault(
            str(row["label"]), {name: int(row[name]) for name in KEPT_COUNTS}
        )
        if row["metric"] in RECORDED_METRICS:
            found[str(row["metric"])] = {name: _kept(row[name]) for name in KEPT_STATISTICS}
    return {
        "cases": int(table["case"].nunique()),
        "folds": sorted(folds),
        "structures": structures,
        "failures": [_failure(row) for row in _lowest(table)],
        **({} if unit == "mm" else {"unit": unit}),
        **({} if doubt is None else {DOUBT: doubt}),
    }


def _lowest(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows with the least overlap; of equal ones those with the larger distance."""
    scored = table[~table["both_empty"].astype(bool)]
    ordered = scored.sort_values(["dice", "hd95_mm"], ascending=[True, False], kind="stable")
    return [{str(k): v for k, v in row.items()} for row in ordered.head(WORST).to_dict("records")]


def _failure(row: Mapping[str, Any]) -> dict[str, Any]:
    what = "overlaps least"
    if row["missed"]:
        what = "missed"
    elif row["false_positive"]:
        what = "invented"
    numbers = ("dice", "hd95_mm", "volume_prediction_ml", "volume_reference_ml")
    return {
        "structure": str(row["label"]),
        "what": what,
        **{name: _kept(row.get(name, math.nan)) for name in numbers},
    }


def _kept(value: float) -> float | None:
    """Six digits; None where there is no number, for JSON."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def keep_scores(package_dir: Path, scores: Mapping[str, Any]) -> ModelPackage:
    """Write scores into a package; its hash, which identifies what it computes, is unchanged."""
    package = ModelPackage.load(package_dir)
    scored = replace(package, provenance={**package.provenance, HELD_OUT: dict(scores)})
    scored.save(package_dir)
    return scored


def score_tags(scores: Mapping[str, Any] | None) -> dict[str, str]:
    """The mean Dice on held-out cases, and a doubt that it is a sign of learning, as tags."""
    mean, doubt = _mean_dice(scores), doubt_of(scores)
    return {
        **({} if mean is None else {DICE_TAG: f"{mean:.3f}"}),
        **({} if doubt is None else {DOUBT_TAG: doubt}),
    }


def doubt_of(scores: Mapping[str, Any] | None) -> str | None:
    """Reason why kept scores are no sign of learning; None where they are, or none are kept.

    Scores that an older version kept are compared with `LEARNED_DICE` alone.
    """
    mean = _mean_dice(scores)
    if scores is not None and DOUBT in scores:
        return str(scores[DOUBT])
    if mean is None or mean >= LEARNED_DICE:
        return None
    return f"the mean Dice on held-out cases is {mean:.3f}, below {LEARNED_DICE}"


def _mean_dice(scores: Mapping[str, Any] | None) -> float | None:
    mean = (scores or {}).get("structures", {}).get(MEAN_LABEL, {}).get("dice", {}).get("mean")
    return None if mean is None else float(mean)


def metric_values(scores: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Names and values for a tracker: `val/hd95_mm/anterior`, `val/missed/anterior`."""
    for label, found in scores["structures"].items():
        for metric in RECORDED_METRICS:
            value = found.get(metric, {}).get("mean")
            if value is not None:
                yield f"val/{metric}/{label}", value
        for count in ("n_missed", "n_false_positive"):
            yield f"val/{count.removeprefix('n_')}/{label}", float(found[count])
