"""Bound on the share of bad results, by the exact binomial distribution; withdrawn by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from segmed.acceptance.criteria import BoundTerms
from segmed.quality.binomial import lower_bound, upper_bound


@dataclass(frozen=True)
class ReviewRule:
    """Rule by which the cases of lowest predicted quality are reviewed.

    Attributes:
        threshold: Predicted quality under which a case is reviewed.
        share: Share of the cases that this is expected to be.
        risk: Share of bad results among the others that the package promises at most; None where
            it promises nothing.
        scores: Predicted quality of each local case.
    """

    threshold: float
    share: float
    risk: float | None
    scores: Mapping[str, float]


@dataclass(frozen=True)
class StatedBound:
    """A bound, and the reasons for which it is withdrawn.

    Attributes:
        dice: A patient counts as bad if the Dice of one structure is under this.
        confidence: One-sided confidence.
        patients: Patients behind it, without those that are reviewed.
        bad: Bad ones among them.
        upper: Upper bound of the share of bad patients.
        reviewed: Patients that are reviewed by the rule of the package; None without such a rule.
        promised: Share that the package promises; None where it promises nothing.
        withdrawn: Reasons why it is not valid here; empty where it is.
    """

    dice: float
    confidence: float
    patients: int
    bad: int
    upper: float
    reviewed: int | None = None
    promised: float | None = None
    withdrawn: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The bound in words."""
        whom, local = "patients", f"{self.patients} scored local patients"
        if self.reviewed is not None:
            whom = "unreviewed patients"
            local = (
                f"{self.patients} unreviewed local patients; {self.reviewed} more are below the "
                "package's threshold of review"
            )
        promise = (
            f"at most {self.upper:.1%} of the {whom} have a structure under Dice {self.dice:g}, "
            f"with {self.confidence:.0%} confidence ({self.bad} of {local})"
        )
        if self.promised is not None:
            promise += f"; the package promises at most {self.promised:.1%}"
        if self.withdrawn:
            return f"bound withdrawn ({promise}): {'; '.join(self.withdrawn)}"
        return f"bound: {promise}"


def state_bound(
    table: pd.DataFrame,
    patients: Mapping[str, str],
    terms: BoundTerms,
    findings: Sequence[str],
    rule: ReviewRule | None = None,
) -> StatedBound:
    """Upper bound of the share of patients with a badly segmented structure.

    Args:
        table: Scores, as from `segmed.metrics.scores_table`.
        patients: Patient of each case; one with several cases is bad if one of them is, and is
            reviewed if one of them is.
        terms: Limit and confidence.
        findings: Reasons why the cases are not exchangeable; any of them withdraws the bound.
        rule: Rule of review; without one no result is reviewed.
    """
    scored = table[~table["both_empty"].astype(bool)]
    lowest = scored["dice"].groupby(scored["case"].map(patients)).min()
    withdrawn, reviewed, promised = list(findings), None, None
    if rule is not None:
        least = pd.Series(dict(rule.scores)).groupby(lambda case: patients[case]).min()
        is_reviewed = least.reindex(lowest.index).fillna(-1.0) < rule.threshold
        reviewed, promised = int(is_reviewed.sum()), rule.risk
        lowest = lowest[~is_reviewed]
    number, bad = len(lowest), int((lowest < terms.dice).sum())
    if promised is not None and lower_bound(bad, number, terms.confidence) > promised:
        withdrawn.append(
            f"the promise of the package does not hold here: {bad} of {number} unreviewed "
            f"patients are under Dice {terms.dice:g}, at most {promised:.0%} were promised"
        )
    return StatedBound(
        terms.dice,
        terms.confidence,
        number,
        bad,
        upper_bound(bad, number, terms.confidence),
        reviewed,
        promised,
        tuple(withdrawn),
    )
