"""Predicted quality of a package, in the form of a dossier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segmed.acceptance.calibration import PredictedCase, PredictedDice
from segmed.acceptance.criteria import BoundTerms
from segmed.package import ModelPackage
from segmed.quality.model import CaseQuality
from segmed.quality.package_form import quality_model_in
from segmed.quality.risk import RiskTarget


@dataclass(frozen=True)
class PackagePromise:
    """Rule of review of a package, and its promise.

    Attributes:
        threshold: Predicted quality under which a case is reviewed.
        review: Share of the cases that this is expected to be.
        risk: Share of bad patients among the others that is promised at most; None where nothing
            is promised.
    """

    threshold: float
    review: float
    risk: float | None


def promise_of(packages: Sequence[ModelPackage], terms: BoundTerms) -> PackagePromise | None:
    """Promise of a package at the terms of a bound; None if it predicts no quality.

    Args:
        packages: The packages of a model; an ensemble of several predicts none.
        terms: Dice, share of review, risk and confidence.

    Raises:
        MetricError: No threshold is known for so small a share of review.
    """
    model = quality_model_in(packages[0].provenance) if len(packages) == 1 else None
    if model is None:
        return None
    found = model.bound(
        RiskTarget(
            review=terms.review, risk=terms.risk, dice=terms.dice, confidence=terms.confidence
        )
    )
    return PackagePromise(found.threshold, found.review, terms.risk if found.is_promised else None)


def predicted_case(found: CaseQuality) -> PredictedCase:
    """Predicted quality of one segmentation in the form of a dossier."""
    return PredictedCase(
        found.score,
        found.coverage,
        {item.label: PredictedDice(item.dice, item.low, item.high) for item in found.structures},
    )
