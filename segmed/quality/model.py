"""Quality model of a package: plain numbers that give each segmentation a Dice with an interval.

For each structure a linear prediction of Dice from its features, fitted on one part of the
out-of-fold cases, and the sorted errors of this prediction on the other part, from which intervals
follow by split-conformal prediction. The errors are relative to a difficulty,
`1 - prediction + FLOOR`: poor segmentations have wider intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from segmed.quality.case_features import CaseFeatures, with_case_means
from segmed.quality.conformal import conformal_quantile, fewest_cases
from segmed.quality.risk import DEFAULT_TARGET, RiskBound, RiskTarget, control_risk
from segmed.structures import Frozen

SCHEMA_VERSION = 1
FLOOR = 0.05
"""Difficulty of a segmentation that is predicted to be perfect."""

COVERAGE = 0.9
"""Probability with which an interval contains its value, unless another one is requested."""

LARGEST_Z = 5.0
"""Standardised features are cut off here, so that no odd image is extrapolated without bounds."""

Basis = Literal["held_out", "out_of_fold", "local"]


@dataclass(frozen=True)
class StructureQuality:
    """Predicted quality of one structure of one segmentation.

    Attributes:
        label: Name of the structure.
        dice: Predicted Dice; of an absent structure the chance that it is rightly absent.
        low: Lower end of its interval; None where none is earned.
        high: Upper end of its interval; None likewise.
        volume_ml: Volume of the segmentation, in ml.
        volume_low_ml: Lower end of the interval of the true volume; None likewise.
        volume_high_ml: Upper end of it; None likewise.
        reason: Why there is no interval; empty where there is one.
    """

    label: str
    dice: float
    low: float | None
    high: float | None
    volume_ml: float
    volume_low_ml: float | None
    volume_high_ml: float | None
    reason: str = ""


@dataclass(frozen=True)
class CaseQuality:
    """Predicted quality of one segmentation.

    Attributes:
        score: Lowest predicted Dice of its structures: what cases are ordered by for review.
        coverage: Probability with which each interval contains its value.
        structures: One for each structure.
    """

    score: float
    coverage: float
    structures: tuple[StructureQuality, ...]

    def record(self) -> dict[str, Any]:
        """JSON values, rounded to six digits."""
        return {
            "score": rounded(self.score),
            "coverage": self.coverage,
            "structures": {
                item.label: {
                    name: rounded(value) if isinstance(value, float) else value
                    for name, value in asdict(item).items()
                    if name != "label" and value != ""
                }
                for item in self.structures
            },
        }


class StructureModel(Frozen):
    """Prediction and calibration of one structure.

    Attributes:
        label: Its name.
        centre: Mean of each feature over the cases of the fit.
        scale: Standard deviation of each.
        weights: Weight of each standardised feature, then of the magnitudes of those in `folded`.
        intercept: Added besides.
        absent: Cases of the fit in which it was absent from the result.
        rightly_absent: Those of them in which it was absent from the reference, too.
        dice_errors: Sorted errors of the calibration cases, one a patient, relative to the
            difficulty.
        volume_shift: Mean logarithm of reference by predicted volume over the cases of the fit.
        volume_errors: Sorted errors of this logarithm over the calibration cases; None stands for
            an infinite one, of a structure that the reference lacks.
    """

    label: str
    centre: tuple[float, ...]
    scale: tuple[Annotated[float, Field(gt=0)], ...]
    weights: tuple[float, ...]
    intercept: float
    absent: Annotated[int, Field(ge=0)]
    rightly_absent: Annotated[int, Field(ge=0)]
    dice_errors: tuple[float, ...]
    volume_shift: float
    volume_errors: tuple[float | None, ...]


class QualityModel(Frozen):
    """Predicted quality and promises of a package.

    Attributes:
        schema_version: Version of this form.
        basis: `held_out`: calibrated on segmentations by the package's own network; `out_of_fold`:
            by the member that had not seen the case; `local`: by the whole package, on cases given
            later, which none of its networks had seen.
        networks: Networks that were averaged for each calibration case.
        features: Names of the features.
        folded: Features whose magnitude enters, too: too large is as odd as too small.
        structures: One for each structure.
        fitted: Patients of the fit.
        calibrated: Patients of the calibration.
        thresholds: Score of the fit's cases at each review share, as pairs.
        scores: Score of each calibration case, one a patient, rising.
        lowest_dice: Lowest Dice of the structures of each.
        target: The promise to test; None for `DEFAULT_TARGET`.
    """

    schema_version: Literal[1] = 1
    basis: Basis
    networks: Annotated[int, Field(ge=1)]
    features: tuple[str, ...]
    folded: tuple[str, ...]
    structures: tuple[StructureModel, ...]
    fitted: Annotated[int, Field(ge=0)]
    calibrated: Annotated[int, Field(ge=0)]
    thresholds: tuple[tuple[float, float], ...]
    scores: tuple[float, ...]
    lowest_dice: tuple[float, ...]
    target: RiskTarget | None = None

    def with_target(self, target: RiskTarget) -> QualityModel:
        """The same model with another promise."""
        return self.model_copy(update={"target": None if target == DEFAULT_TARGET else target})

    def predict(
        self,
        features: CaseFeatures,
        volumes_ml: Mapping[str, float],
        *,
        coverage: float = COVERAGE,
    ) -> CaseQuality:
        """Predict the quality of a segmentation.

        Args:
            features: From `FeatureSums.features`.
            volumes_ml: Volume of each structure in the result, in ml.
            coverage: Probability with which each interval is to contain its value.
        """
        rows = with_case_means(features)
        found = tuple(
            self._structure(item, rows.get(item.label, {}), volumes_ml[item.label], coverage)
            for item in self.structures
        )
        return CaseQuality(min((item.dice for item in found), default=0.0), coverage, found)

    def _structure(
        self, item: StructureModel, features: Mapping[str, float], volume: float, coverage: float
    ) -> StructureQuality:
        if volume == 0.0 or not features:
            chance = item.rightly_absent / (item.absent + 1)
            reason = (
                f"absent from the result, as rightly in {item.rightly_absent} of {item.absent} "
                "cases of the fit"
            )
            return StructureQuality(item.label, chance, None, None, volume, None, None, reason)
        dice = predicted_dice(item, features, self.features, self.folded)
        difficulty = difficulty_of(dice)
        reach = difficulty * conformal_quantile(item.dice_errors, coverage)
        errors = [math.inf if error is None else error for error in item.volume_errors]
        spread = difficulty * conformal_quantile(errors, coverage)
        centre = math.log(volume) + item.volume_shift
        is_stated, is_bounded = math.isfinite(reach), math.isfinite(spread)
        return StructureQuality(
            label=item.label,
            dice=dice,
            low=max(0.0, dice - reach) if is_stated else None,
            high=min(1.0, dice + reach) if is_stated else None,
            volume_ml=volume,
            volume_low_ml=math.exp(centre - spread) if is_bounded else None,
            volume_high_ml=math.exp(centre + spread) if is_bounded else None,
            reason="" if is_stated else self._shortfall(item, coverage),
        )

    def _shortfall(self, item: StructureModel, coverage: float) -> str:
        """Reason why a structure has no interval."""
        return (
            f"{len(item.dice_errors)} calibration patients have it; an interval of {coverage:.0%} "
            f"needs {fewest_cases(coverage)}"
        )

    def bound(self, target: RiskTarget | None = None) -> RiskBound:
        """Test a promise on the calibration cases; see `control_risk`.

        Args:
            target: The promise; the model's own if not given.
        """
        chosen = target or self.target or DEFAULT_TARGET
        return control_risk(self.scores, self.lowest_dice, dict(self.thresholds), chosen)

    def missing_features(self, features: CaseFeatures) -> list[str]:
        """Features of this model that a segmentation lacks, such as the members' agreement."""
        present = [found for found in with_case_means(features).values() if found]
        return [name for name in self.features if any(name not in found for found in present)]


def predicted_dice(
    item: StructureModel,
    features: Mapping[str, float],
    names: Sequence[str],
    folded: Sequence[str],
) -> float:
    """Predicted Dice of a structure that is present, 0 to 1."""
    row = design_row(features, names, folded, item.centre, item.scale)
    value = item.intercept + float(np.dot(row, item.weights))
    return min(1.0, max(0.0, value))


def design_row(
    features: Mapping[str, float],
    names: Sequence[str],
    folded: Sequence[str],
    centre: Sequence[float],
    scale: Sequence[float],
) -> list[float]:
    """Standardised features of one structure, then the magnitudes of the folded ones."""
    z = {
        name: max(-LARGEST_Z, min(LARGEST_Z, (features[name] - middle) / width))
        for name, middle, width in zip(names, centre, scale, strict=True)
    }
    return [*z.values(), *(abs(z[name]) for name in folded)]


def difficulty_of(dice: float) -> float:
    """Scale of the error of a predicted Dice."""
    return 1.0 - dice + FLOOR


def rounded(value: float) -> float:
    """Six significant digits."""
    return float(f"{value:.6g}")
