"""Predicted quality of a package, in the form of a dossier."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segmed.acceptance.calibration import PredictedCase, PredictedDice
from segmed.acceptance.criteria import BoundTerms
from segmed.acceptance.local_quality import FITTED_ON
from segmed.manifest import Case, Manifest
from segmed.package import ModelPackage
from segmed.package.training_cases import image_mark
from segmed.quality.model import CaseQuality
from segmed.quality.package_form import quality_model_in
from segmed.quality.risk import RiskTarget

logger = logging.getLogger(__name__)


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


def predicted_order(record: Mapping[str, Any]) -> PredictedCase:
    """Predicted quality that an archive recorded, without intervals, for judged results.

    A result that a reviewer accepts as it is counts as its own reference, so its Dice is 1 and no
    Dice that an interval was stated for. The order of the results is comparable all the same.

    Args:
        record: `CaseQuality.record()`, from the measures of a study.
    """
    structures = {name: PredictedDice(item["dice"]) for name, item in record["structures"].items()}
    return PredictedCase(record["score"], record["coverage"], structures)


def without_fitted(
    predicted: Mapping[str, PredictedCase],
    package: ModelPackage,
    manifest: Manifest,
    cases: Sequence[Case],
) -> dict[str, PredictedCase]:
    """Predicted quality that local cases can check; none where it was fitted on one of them.

    Args:
        predicted: Predicted quality by case.
        package: The package.
        manifest: The image set of the cases.
        cases: The local cases.
    """
    fitted = frozenset(package.provenance.get(FITTED_ON, ()))
    known = sum(image_mark(manifest, case) in fitted for case in cases) if fitted else 0
    if not known:
        return dict(predicted)
    logger.warning(
        "predicted quality was fitted on %d of the %d local cases, so they cannot check it: the "
        "dossier leaves it out; give other cases",
        known,
        len(cases),
    )
    return {}
