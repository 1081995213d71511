"""Groups of cases that are scored worse than the rest of the site, with Holm's correction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from segmed.acceptance.facts import KINDS
from segmed.metrics.resample import CONFIDENCE, SEED, bootstrap_means
from segmed.metrics.score import MEAN_LABEL
from segmed.metrics.significance import SIGNIFICANCE, holm

FEWEST_CASES = 5
"""Cases that a group and the rest must both have before they are compared."""

MARGIN = 0.05
"""Difference of mean Dice that matters: a smaller one is not called worse, however sure it is."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GroupRow:
    """One group beside the rest of the cases, for one structure.

    Attributes:
        kind: `scanner`, `protocol`, `age decade` or `sex`.
        value: Value that the cases of the group share.
        label: Structure, or `mean` over all of a case.
        n: Scored cases of the group.
        n_rest: Scored cases with another value of this kind.
        mean: Mean Dice of the group.
        rest: Mean Dice of the others; None without any.
        difference: Group minus rest; None where they are not compared.
        ci_low: Lower end of its 95 % bootstrap interval.
        ci_high: Upper end.
        p_value: One-sided, that the group is worse (Mann-Whitney); None where not compared.
        p_holm: The same, corrected for all comparisons of the site.
        is_worse: Whether the group is significantly worse, by more than the margin.
    """

    kind: str
    value: str
    label: str
    n: int
    n_rest: int
    mean: float
    rest: float | None = None
    difference: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p_value: float | None = None
    p_holm: float | None = None
    is_worse: bool = False

    @property
    def sentence(self) -> str:
        """The finding in words."""
        return (
            f"{self.kind} {self.value!r} is worse: {self.label} Dice {self.mean:.3f} in {self.n} "
            f"cases, {self.rest:.3f} in the other {self.n_rest} "
            f"(p = {self.p_holm:.2g} after Holm's correction)"
        )


def dice_by_label(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Dice of each scored case, by structure, and `mean` over the structures of a case.

    Args:
        table: As from `segmed.metrics.scores_table`.
    """
    scored = table[~table["both_empty"].astype(bool)]
    found = {str(label): rows.set_index("case")["dice"] for label, rows in scored.groupby("label")}
    plain = scored[~scored["is_region"].astype(bool)]
    if plain["label"].nunique() != 1 and len(plain):
        found[MEAN_LABEL] = plain.groupby("case")["dice"].mean()
    return found


def compare_groups(
    table: pd.DataFrame, values: Mapping[str, Mapping[str, str]], *, margin: float = MARGIN
) -> list[GroupRow]:
    """Compare each group of cases with the rest.

    Args:
        table: Scores, as from `segmed.metrics.scores_table`.
        values: Value of each case by kind, as from `shown_values`.
        margin: Smallest difference of mean Dice that makes a group worse.

    Returns:
        One row a group and structure; worse groups first, then by kind and value. A kind of which
        all cases have one value is described, not compared.

    Source:
        Mann and Whitney 1947, Annals of Mathematical Statistics 18(1); Holm 1979.
    """
    rows = list(_described(dice_by_label(table), values))
    compared = [place for place, row in enumerate(rows) if row.p_value is not None]
    corrected = holm([rows[place].p_value or 0.0 for place in compared])
    for place, p_holm in zip(compared, corrected, strict=True):
        row = rows[place]
        is_worse = p_holm < SIGNIFICANCE and (row.difference or 0.0) < -margin
        rows[place] = GroupRow(
            **{**row.__dict__, "p_holm": float(p_holm), "is_worse": bool(is_worse)}
        )
    return sorted(rows, key=lambda row: (not row.is_worse, KINDS.index(row.kind), row.value))


def _described(
    dice: Mapping[str, pd.Series], values: Mapping[str, Mapping[str, str]]
) -> Iterator[GroupRow]:
    for kind in KINDS:
        of_case = {case: found[kind] for case, found in values.items() if kind in found}
        for label, scores in dice.items():
            known = scores[scores.index.isin(list(of_case))]
            group_of = known.index.map(of_case)
            for value in sorted(set(group_of)):
                inside = known[group_of == value].to_numpy(dtype=np.float64)
                outside = known[group_of != value].to_numpy(dtype=np.float64)
                yield _row(kind, value, label, inside, outside)


def _row(kind: str, value: str, label: str, inside: Values, outside: Values) -> GroupRow:
    rest = float(outside.mean()) if len(outside) else None
    mean = float(inside.mean())
    if min(len(inside), len(outside)) < FEWEST_CASES or rest is None:
        return GroupRow(kind, value, label, len(inside), len(outside), mean, rest)
    low, high = _interval(inside, outside)
    p_value = float(stats.mannwhitneyu(inside, outside, alternative="less").pvalue)
    return GroupRow(
        kind,
        value,
        label,
        len(inside),
        len(outside),
        mean,
        rest,
        difference=mean - rest,
        ci_low=low,
        ci_high=high,
        p_value=p_value,
    )


def _interval(inside: Values, outside: Values) -> tuple[float, float]:
    """Bootstrap interval of the difference of two means; the two samples are drawn apart."""
    drawn = bootstrap_means(inside[:, None]) - bootstrap_means(outside[:, None], seed=SEED + 1)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(drawn[:, 0], [tail, 100 - tail])
    return float(low), float(high)
