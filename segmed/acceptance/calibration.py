"""Predicted quality beside the local scores: calibration of its intervals, and risk by coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from segmed.metrics.significance import SIGNIFICANCE, holm
from segmed.quality.binomial import binomial_p_value
from segmed.quality.risk_coverage import RiskCoverage, risk_coverage

MARGIN = 0.05
"""Shortfall of coverage that matters: a smaller one is no finding, however sure it is."""


@dataclass(frozen=True)
class PredictedDice:
    """Predicted Dice of one structure of one case.

    Attributes:
        dice: The prediction.
        low: Lower end of its interval; None where none is stated.
        high: Upper end; None likewise.
    """

    dice: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class PredictedCase:
    """Predicted quality of one case.

    Attributes:
        score: What cases are ordered by for review: the lowest predicted Dice.
        coverage: Probability with which each interval is to contain its value.
        structures: Predicted Dice by structure.
    """

    score: float
    coverage: float
    structures: Mapping[str, PredictedDice]


@dataclass(frozen=True)
class CalibrationRow:
    """Intervals of one structure beside its local Dice, one case a patient.

    Attributes:
        label: Structure.
        n: Cases with an interval.
        inside: Those whose Dice is inside.
        stated: Coverage that is stated.
        bias: Mean of predicted minus true Dice.
        p_value: One-sided exact p of so few inside; None without a case.
        p_holm: The same, corrected for all structures.
        is_short: Whether the coverage is significantly less than stated, by more than the margin.
    """

    label: str
    n: int
    inside: int
    stated: float
    bias: float | None
    p_value: float | None = None
    p_holm: float | None = None
    is_short: bool = False

    @property
    def sentence(self) -> str:
        """The finding in words."""
        return (
            f"predicted quality: {self.inside} of {self.n} intervals of {self.label} contain the "
            f"local Dice, {self.stated:.0%} are stated (p = {self.p_holm:.2g})"
        )


@dataclass(frozen=True)
class Calibration:
    """Predicted quality at a site.

    Attributes:
        rows: Calibration of each structure.
        curve: Mean of 1 - Dice of the cases that are not reviewed, by their share.
        points: Predicted and true Dice of each case and structure, unnamed and sorted.
    """

    rows: tuple[CalibrationRow, ...]
    curve: RiskCoverage
    points: tuple[tuple[float, float], ...] = field(repr=False)


def calibrate(
    table: pd.DataFrame, patients: Mapping[str, str], predicted: Mapping[str, PredictedCase]
) -> Calibration | None:
    """Compare predicted quality with the local scores.

    Args:
        table: Scores, as from `segmed.metrics.scores_table`.
        patients: Patient of each case.
        predicted: Predicted quality by case; cases without one are left out.

    Returns:
        The comparison; None without any case that has both.
    """
    scored = table[~table["both_empty"].astype(bool) & table["case"].isin(list(predicted))]
    if scored.empty:
        return None
    truth = {
        (str(row["case"]), str(row["label"])): float(row["dice"])
        for row in scored.to_dict("records")
    }
    lowest = scored.groupby("case")["dice"].min()
    names = [str(case) for case in lowest.index]
    curve = risk_coverage(
        [predicted[case].score for case in names], [1.0 - value for value in lowest]
    )
    points = sorted(
        (predicted[case].structures[label].dice, dice)
        for (case, label), dice in truth.items()
        if label in predicted[case].structures
    )
    labels = list(dict.fromkeys(str(label) for label in scored["label"]))
    firsts = list({patients[case]: case for case in reversed(list(predicted))}.values())
    rows = _corrected([_row(label, firsts, truth, predicted) for label in labels])
    return Calibration(tuple(rows), curve, tuple(points))


def _row(
    label: str,
    cases: Sequence[str],
    truth: Mapping[tuple[str, str], float],
    predicted: Mapping[str, PredictedCase],
) -> CalibrationRow:
    found = [
        (item, truth[case, label], predicted[case].coverage)
        for case in cases
        if (case, label) in truth
        and (item := predicted[case].structures.get(label)) is not None
        and item.low is not None
        and item.high is not None
    ]
    stated = found[0][2] if found else 0.0
    if not found:
        return CalibrationRow(label, 0, 0, stated, None)
    inside = sum((i.low or 0.0) <= dice <= (i.high or 0.0) for i, dice, _ in found)
    bias = sum(item.dice - dice for item, dice, _ in found) / len(found)
    p_value = binomial_p_value(inside, len(found), stated)
    return CalibrationRow(label, len(found), inside, stated, bias, p_value)


def _corrected(rows: Sequence[CalibrationRow]) -> list[CalibrationRow]:
    tested = [row for row in rows if row.p_value is not None]
    values = dict(
        zip((r.label for r in tested), holm([r.p_value or 0.0 for r in tested]), strict=True)
    )
    return [
        row
        if row.label not in values
        else replace(
            row,
            p_holm=float(values[row.label]),
            is_short=bool(
                values[row.label] < SIGNIFICANCE and row.inside / row.n < row.stated - MARGIN
            ),
        )
        for row in rows
    ]
