"""Bound on the share of bad results, by the exact binomial distribution; withdrawn by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from scipy import stats

from segmed.acceptance.criteria import BoundTerms


@dataclass(frozen=True)
class StatedBound:
    """A bound, and the reasons for which it is withdrawn.

    Attributes:
        dice: A patient counts as bad if the Dice of one structure is under this.
        confidence: One-sided confidence.
        patients: Patients behind it: cases of one patient are not independent.
        bad: Bad ones among them.
        upper: Upper bound of the share of bad patients.
        withdrawn: Reasons why it is not valid here; empty where it is.
    """

    dice: float
    confidence: float
    patients: int
    bad: int
    upper: float
    withdrawn: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The bound in words."""
        promise = (
            f"at most {self.upper:.1%} of the patients have a structure under Dice "
            f"{self.dice:g}, with {self.confidence:.0%} confidence ({self.bad} of "
            f"{self.patients} local patients)"
        )
        if self.withdrawn:
            return f"bound withdrawn ({promise}): {'; '.join(self.withdrawn)}"
        return f"bound: {promise}"


def state_bound(
    table: pd.DataFrame,
    patients: Mapping[str, str],
    terms: BoundTerms,
    findings: Sequence[str],
) -> StatedBound:
    """Upper bound of the share of patients with a badly segmented structure.

    Args:
        table: Scores, as from `segmed.metrics.scores_table`.
        patients: Patient of each case; one with several cases is bad if one of them is.
        terms: Limit and confidence.
        findings: Reasons why the cases are not exchangeable; any of them withdraws the bound.

    Source:
        Clopper and Pearson 1934, Biometrika 26(4).
    """
    scored = table[~table["both_empty"].astype(bool)]
    lowest = scored["dice"].groupby(scored["case"].map(patients)).min()
    number, bad = len(lowest), int((lowest < terms.dice).sum())
    upper = 1.0 if bad == number else float(stats.beta.ppf(terms.confidence, bad + 1, number - bad))
    return StatedBound(terms.dice, terms.confidence, number, bad, upper, tuple(findings))
