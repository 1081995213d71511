"""Local scores beside those of the card: differences with intervals, and a shift of the site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from segmed.metrics.score import METRICS, Metric
from segmed.metrics.significance import SIGNIFICANCE, holm
from segmed.metrics.summary import RECORDED_METRICS, summarise

MARGIN = 0.05
"""Loss of a mean in 0..1 beyond which a significant loss is a shift."""

MARGIN_MM = 2.0
"""The same of a mean distance, in mm."""

TESTED = ("dice", "hd95_mm")
"""Metrics whose loss is tested: one overlap and one distance, as in a comparison of models."""


@dataclass(frozen=True)
class ScoreRow:
    """One structure and metric at this site, beside the card.

    Attributes:
        label: Structure, or `mean`.
        metric: Column of the scores.
        mean: Local mean over cases; None where nothing was scored.
        ci_low: Lower end of its 95 % bootstrap interval.
        ci_high: Upper end.
        n: Local cases scored.
        n_missed: Structures missed.
        n_false_positive: Structures invented.
        n_both_empty: Cases without the structure, in which none was found.
        card: Mean of the card; None where the card has none.
        card_ci_low: Lower end of its interval.
        card_ci_high: Upper end.
        card_n: Cases behind it.
        loss: Local loss against the card in the metric's unit, positive is worse.
        loss_high: Upper end of the one-sided 95 % interval of the loss.
        p_value: One-sided p of the loss (Welch); None where it is not tested.
        p_holm: The same, corrected for all that are tested.
        is_shift: Whether the loss is significant and beyond the margin.
    """

    label: str
    metric: str
    mean: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    n_missed: int
    n_false_positive: int
    n_both_empty: int
    card: float | None = None
    card_ci_low: float | None = None
    card_ci_high: float | None = None
    card_n: int | None = None
    loss: float | None = None
    loss_high: float | None = None
    p_value: float | None = None
    p_holm: float | None = None
    is_shift: bool = False

    @property
    def sentence(self) -> str:
        """A shift in words."""
        metric = next(one for one in METRICS if one.name == self.metric)
        return (
            f"site shift: {self.label} {metric.title} is {self.mean:.3f} here (n = {self.n}) and "
            f"{self.card:.3f} on the card (n = {self.card_n}), "
            f"p = {self.p_holm:.2g} after Holm's correction"
        )


def scores_beside_card(table: pd.DataFrame, card: Mapping[str, Any] | None) -> list[ScoreRow]:
    """Summarise local scores beside those of the card.

    Args:
        table: Local scores, as from `segmed.metrics.scores_table`.
        card: Scores on cases kept out of training that the package keeps (`structures` by name);
            None without any.

    Returns:
        One row a structure and metric, in the order of the summary.

    Raises:
        MetricError: Nothing could be scored.

    Source:
        Welch 1947, Biometrika 34(1-2).
    """
    structures = (card or {}).get("structures", {})
    rows = [
        _beside(row, structures.get(str(row["label"]), {}))
        for row in summarise(table).to_dict("records")
        if row["metric"] in RECORDED_METRICS
    ]
    tested = [place for place, row in enumerate(rows) if row.p_value is not None]
    corrected = holm([rows[place].p_value or 0.0 for place in tested])
    for place, p_holm in zip(tested, corrected, strict=True):
        row = rows[place]
        margin = MARGIN_MM if row.metric.endswith("_mm") else MARGIN
        is_shift = p_holm < SIGNIFICANCE and (row.loss or 0.0) > margin
        rows[place] = replace(row, p_holm=float(p_holm), is_shift=bool(is_shift))
    return rows


def _beside(local: Mapping[Any, Any], card: Mapping[str, Any]) -> ScoreRow:
    metric = next(one for one in METRICS if one.name == local["metric"])
    row = ScoreRow(
        label=str(local["label"]),
        metric=metric.name,
        mean=_number(local["mean"]),
        ci_low=_number(local["ci_low"]),
        ci_high=_number(local["ci_high"]),
        n=int(local["n"]),
        n_missed=int(local["n_missed"]),
        n_false_positive=int(local["n_false_positive"]),
        n_both_empty=int(local["n_both_empty"]),
    )
    kept = card.get(metric.name, {})
    mean = _number(kept.get("mean"))
    if mean is None:
        return row
    row = replace(
        row,
        card=mean,
        card_ci_low=_number(kept.get("ci_low")),
        card_ci_high=_number(kept.get("ci_high")),
        card_n=int(card["n"]),
    )
    return row if row.mean is None else _with_loss(row, metric, local, kept)


def _with_loss(
    row: ScoreRow, metric: Metric, local: Mapping[Any, Any], card: Mapping[str, Any]
) -> ScoreRow:
    assert row.mean is not None
    assert row.card is not None
    sign = 1.0 if metric.higher_is_better else -1.0
    loss = sign * (row.card - row.mean)
    ours, theirs = _number(local["std"]), _number(card.get("std"))
    if ours is None or theirs is None or not row.card_n or (ours == 0 and theirs == 0):
        return replace(row, loss=loss)
    errors = np.array([ours**2 / row.n, theirs**2 / row.card_n])
    degrees = errors.sum() ** 2 / sum(
        error**2 / max(1, n - 1) for error, n in zip(errors, (row.n, row.card_n), strict=True)
    )
    error = float(np.sqrt(errors.sum()))
    return replace(
        row,
        loss=loss,
        loss_high=loss + error * float(stats.t.ppf(0.95, degrees)),
        p_value=float(stats.t.sf(loss / error, degrees)) if metric.name in TESTED else None,
    )


def _number(value: Any) -> float | None:
    return None if value is None or not np.isfinite(float(value)) else float(value)
