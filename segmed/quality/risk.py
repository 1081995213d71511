"""Risk control: a bound on the share of bad results among those without review.

A promise has the form "if the cases of the lowest predicted quality, a share of 10 %, are reviewed,
at most 5 % of the others have a Dice below 0.8, with 95 % confidence". Thresholds are fixed before
the calibration cases are seen. The threshold of the requested review share is tested first, by the
exact binomial test on the calibration cases above it; if it passes, thresholds that ask for less
review are tested one after the other, each at the full level, up to the first that fails. So the
choice among thresholds costs no confidence. Several starts divide the level between them.

Source:
    Angelopoulos, Bates, Candes, Jordan and Lei 2025, Annals of Applied Statistics 19(2), "Learn
    then test", section 3 (fixed-sequence testing, algorithm 1); Geifman and El-Yaniv 2017,
    NeurIPS (selection with guaranteed risk).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from segmed.errors import MetricError, UsageError
from segmed.quality.binomial import binomial_p_value, fewest_trials, upper_bound
from segmed.structures import Frozen
from segmed.validation import first_fault

Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class RiskTarget(Frozen):
    """A promise to test.

    Attributes:
        review: Share of the cases, those of the lowest predicted quality, that is reviewed.
        risk: Largest share of failures among the others.
        dice: A case fails if the Dice of one of its structures is below this.
        confidence: Probability with which the promise is kept.
    """

    review: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    risk: Share = 0.05
    dice: Share = 0.8
    confidence: Share = 0.95

    @property
    def sentence(self) -> str:
        """The promise in words."""
        return (
            f"at {self.review:.0%} review at most {self.risk:.0%} of the unreviewed are under Dice "
            f"{self.dice:g}, with {self.confidence:.0%} confidence"
        )

    @staticmethod
    def parse(text: str) -> RiskTarget:
        """A promise in terms, such as `dice=0.8,risk=5%,review=10%,confidence=95%`.

        Args:
            text: Terms in any order; those left out are the default ones.

        Raises:
            UsageError: A term is unknown, repeated, no number or out of range.
        """
        found: dict[str, float] = {}
        for term in filter(None, (part.strip() for part in text.split(","))):
            name, is_given, value = (piece.strip() for piece in term.partition("="))
            if name not in RiskTarget.model_fields or not is_given or name in found:
                fault = "is given twice" if name in found else f"is not one of {TERMS}"
                raise UsageError(f"promise {text!r}: {term!r} {fault}")
            found[name] = _number_of(value, text)
        try:
            return RiskTarget.model_validate(found)
        except ValidationError as error:
            raise UsageError(f"promise {text!r}: {first_fault(error)}") from error


TERMS = "dice=0.8, risk=5%, review=10%, confidence=95%"
"""Terms of a promise, by example."""

DEFAULT_TARGET = RiskTarget()


@dataclass(frozen=True)
class RiskBound:
    """Result of the test of a promise on the calibration cases.

    Attributes:
        target: The promise.
        is_promised: Whether the test supports it.
        threshold: Predicted quality below which a case is to be reviewed.
        review: Expected share of review at this threshold; with a promise at most the target's.
        cases: Calibration cases (one a patient) at or above the threshold.
        failures: Failures among them.
        upper: Upper bound of the share of failures among the unreviewed, at the threshold of the
            requested review, with the target's confidence.
        reason: Why nothing is promised; empty where it is.
    """

    target: RiskTarget
    is_promised: bool
    threshold: float
    review: float
    cases: int
    failures: int
    upper: float
    reason: str = ""

    @property
    def sentence(self) -> str:
        """The promise, or why there is none, in words."""
        if self.is_promised:
            kept = self.target.model_copy(update={"review": self.review}).sentence
            return f"{kept} ({self.failures} of {self.cases} calibration patients)"
        return f"no promise: {self.reason}"


def control_risk(
    predicted: Sequence[float],
    dice: Sequence[float],
    thresholds: Mapping[float, float],
    target: RiskTarget = DEFAULT_TARGET,
) -> RiskBound:
    """Test a promise on calibration cases, and find the least review that keeps it.

    Args:
        predicted: Predicted quality of each calibration case; independent cases, one a patient.
        dice: Dice of each: the lowest of its structures.
        thresholds: Predicted quality by review share, fixed without these cases.
        target: The promise.

    Returns:
        The bound. Without a promise the threshold is that of the requested review.

    Raises:
        MetricError: Lengths differ, a value is not a number, or no threshold is known for a review
            of at most the requested share.
    """
    scores, truth = _checked(predicted, dice)
    shares = sorted((s for s in thresholds if s <= target.review + 1e-9), reverse=True)
    if not shares:
        raise MetricError(
            f"no threshold for a review of {target.review:.0%} or less; known are "
            f"{', '.join(f'{share:.0%}' for share in sorted(thresholds)) or 'none'}"
        )
    counts = [_counted(scores, truth, thresholds[share], target.dice) for share in shares]
    p_values = [binomial_p_value(failures, cases, target.risk) for failures, cases in counts]
    passed = fixed_sequence(p_values, 1.0 - target.confidence)
    first_failures, first_cases = counts[0]
    upper = upper_bound(first_failures, first_cases, target.confidence)
    chosen = max(passed - 1, 0)
    failures, cases = counts[chosen]
    return RiskBound(
        target=target,
        is_promised=passed > 0,
        threshold=float(thresholds[shares[chosen]]),
        review=float(shares[chosen]),
        cases=cases,
        failures=failures,
        upper=upper,
        reason="" if passed else _shortfall(first_failures, first_cases, upper, target),
    )


def _number_of(text: str, whole: str) -> float:
    """A number, or a percentage as a share."""
    try:
        return float(text[:-1]) / 100.0 if text.endswith("%") else float(text)
    except ValueError as error:
        raise UsageError(f"promise {whole!r}: {text!r} is no number such as 0.8 or 5%") from error


def fixed_sequence(p_values: Sequence[float], level: float) -> int:
    """Number of hypotheses that fixed-sequence testing rejects.

    Args:
        p_values: Of the hypotheses, in an order that was fixed before the data were seen.
        level: Probability of rejecting any true one, at most.

    Returns:
        How many of the first ones are rejected: those before the first p-value above the level.
    """
    for number, p_value in enumerate(p_values):
        if p_value > level:
            return number
    return len(p_values)


def _shortfall(failures: int, cases: int, upper: float, target: RiskTarget) -> str:
    """Reason why the test of the first threshold failed."""
    needed = fewest_trials(target.risk, target.confidence)
    if cases < needed:
        return (
            f"{cases} calibration patients are left at {target.review:.0%} review; a bound of "
            f"{target.risk:.0%} with {target.confidence:.0%} confidence needs at least {needed}"
        )
    return (
        f"{failures} of {cases} calibration patients left at {target.review:.0%} review are under "
        f"Dice {target.dice:g}: up to {upper:.1%} of the unreviewed may be, with "
        f"{target.confidence:.0%} confidence"
    )


def _counted(
    scores: npt.NDArray[Any], dice: npt.NDArray[Any], threshold: float, least: float
) -> tuple[int, int]:
    """Failures and cases among those that are not reviewed."""
    accepted = scores >= threshold
    return int(np.count_nonzero(dice[accepted] < least)), int(np.count_nonzero(accepted))


def _checked(
    predicted: Sequence[float], dice: Sequence[float]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    scores, truth = np.asarray(predicted, np.float64), np.asarray(dice, np.float64)
    if scores.shape != truth.shape or scores.ndim != 1:
        raise MetricError(f"{scores.size} predictions and {truth.size} Dice values: one a case")
    if np.isnan(scores).any() or np.isnan(truth).any():
        raise MetricError("a predicted quality or a Dice is not a number; leave the case out")
    return scores, truth
