"""Fit a quality model on cases with references that the network had not seen.

The patients are divided: one half fits the prediction and the thresholds of review, the other, one
case of each patient, calibrates intervals and promises. Nothing of the second part enters the
first, which is what the guarantees need.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segmed.errors import MetricError
from segmed.quality.case_features import (
    AGREEMENT,
    FEATURES,
    OF_CASE,
    CaseFeatures,
    with_case_means,
)
from segmed.quality.conformal import one_of_each, split_groups
from segmed.quality.model import (
    Basis,
    QualityModel,
    StructureModel,
    design_row,
    difficulty_of,
    predicted_dice,
    rounded,
)
from segmed.quality.regression import (
    Examples,
    Linear,
    confidence_weights,
    confidences_in,
    fit_structures,
)

FIT_SHARE = 0.5
"""Share of the patients that fits the prediction."""

FEWEST_PATIENTS = 3
"""Fewer patients than this give no model: there is nothing to fit and to calibrate."""

REVIEW_SHARES = (0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
"""Shares of review whose thresholds are kept."""

SEED = 0

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StructureTruth:
    """One structure of a case beside its reference.

    Attributes:
        dice: Dice; NaN where both lack the structure.
        predicted_ml: Volume in the result, in ml.
        reference_ml: Volume in the reference, in ml.
    """

    dice: float
    predicted_ml: float
    reference_ml: float


@dataclass(frozen=True)
class QualityCase:
    """A segmented case that the network had not seen, with its reference.

    Attributes:
        group: Its group (patient).
        features: Features by structure; empty ones for a structure that is absent.
        truth: The same structures beside the reference.
        is_flagged: Whether its result has a quality flag; None where that was not looked at.
    """

    group: str
    features: CaseFeatures
    truth: Mapping[str, StructureTruth]
    is_flagged: bool | None = None

    @property
    def lowest_dice(self) -> float:
        """Lowest Dice of the structures; one that both lack counts as 1."""
        return min(1.0 if math.isnan(t.dice) else t.dice for t in self.truth.values())


def fit_quality(
    cases: Sequence[QualityCase], *, basis: Basis, networks: int = 1, seed: int = SEED
) -> QualityModel | None:
    """Fit and calibrate a quality model.

    Args:
        cases: Cases that no network of theirs was trained on, with the same structures.
        basis: Relation of their segmentations to the package; see `QualityModel`.
        networks: Networks that were averaged for each of them.
        seed: Seed of the division of the patients.

    Returns:
        The model; None with fewer than `FEWEST_PATIENTS` patients.

    Raises:
        MetricError: Two cases have other structures.
    """
    groups = [case.group for case in cases]
    if len(set(groups)) < FEWEST_PATIENTS:
        return None
    labels = list(cases[0].truth)
    if any(list(case.truth) != labels for case in cases):
        raise MetricError("cases differ in their structures; fit them apart")
    names = _names_in(cases)
    folded = tuple(name for name in names if name.startswith(("log_", "mean:")))
    is_fitted = split_groups(groups, FIT_SHARE, seed=seed)
    fit = [case for case, marked in zip(cases, is_fitted, strict=True) if marked]
    rest = [case for case, marked in zip(cases, is_fitted, strict=True) if not marked]
    rest = [rest[place] for place in one_of_each([case.group for case in rest], seed=seed)]
    fitted = _fits(fit, labels, names, folded)
    model = QualityModel(
        basis=basis,
        networks=networks,
        features=names,
        folded=folded,
        structures=tuple(_calibrated(fitted[label].model, rest, names, folded) for label in labels),
        fitted=len({case.group for case in fit}),
        calibrated=len(rest),
        thresholds=(),
        scores=(),
        lowest_dice=(),
    )
    left_out = [min(fitted[label].left_out[place] for label in labels) for place in range(len(fit))]
    pairs = sorted((rounded(score_of(model, case)), rounded(case.lowest_dice)) for case in rest)
    return model.model_copy(
        update={
            "thresholds": tuple((s, _threshold(left_out, s)) for s in REVIEW_SHARES),
            "scores": tuple(score for score, _ in pairs),
            "lowest_dice": tuple(dice for _, dice in pairs),
        }
    )


def score_of(model: QualityModel, case: QualityCase) -> float:
    """Score of a case by a model."""
    volumes = {label: truth.predicted_ml for label, truth in case.truth.items()}
    return model.predict(case.features, volumes).score


def _names_in(cases: Sequence[QualityCase]) -> tuple[str, ...]:
    """The features that all present structures have, and their means over the case if several."""
    rows = [row for case in cases for row in case.features.values() if row]
    shared = set(rows[0]).intersection(*rows) if rows else set(FEATURES)
    known = [*FEATURES, AGREEMENT]
    own = [name for name in [*known, *sorted(shared - set(known))] if name in shared]
    several = len(cases[0].truth) > 1
    return (*own, *(f"{OF_CASE}{name}" for name in own if several))


def _threshold(scores: Sequence[float], share: float) -> float:
    """Score below which a share of the cases is; that of no review is 0."""
    return rounded(float(np.quantile(scores, share))) if share > 0 else 0.0


@dataclass(frozen=True)
class _Fit:
    """The prediction of one structure, and of each case of the fit by the other patients."""

    model: StructureModel
    left_out: list[float]


def _fits(
    cases: Sequence[QualityCase],
    labels: Sequence[str],
    names: Sequence[str],
    folded: Sequence[str],
) -> dict[str, _Fit]:
    """Fit all structures together.

    Args:
        cases: Cases of the fit.
        labels: The structures.
        names: Names of the features.
        folded: Those whose magnitude enters, too.
    """
    there = {label: [case for case in cases if is_present(case, label)] for label in labels}
    tables = {label: _table(there[label], label, names) for label in labels}
    scales = _scales(tables, names)
    examples = [
        Examples(
            _design(tables[label], names, folded, *scales[label]),
            np.array([case.truth[label].dice for case in there[label]]),
            [case.group for case in there[label]],
        )
        for label in labels
    ]
    confidence = confidence_weights(names, len(names) + len(folded))
    return {
        label: _fit_of(cases, label, scales[label], linear)
        for label, linear in zip(labels, fit_structures(examples, confidence), strict=True)
    }


def _table(cases: Sequence[QualityCase], label: str, names: Sequence[str]) -> Numbers:
    """Features of a structure, one row a case."""
    rows = [with_case_means(case.features)[label] for case in cases]
    table = np.array([[row[name] for name in names] for row in rows], np.float64)
    return table.reshape(len(rows), len(names))


def _scales(
    tables: Mapping[str, Numbers], names: Sequence[str]
) -> dict[str, tuple[Numbers, Numbers]]:
    """Centre and scale of each feature; confidences have those of all structures together.

    They compare structures: one that is always unsure is worse, not merely itself.
    """
    pooled = np.concatenate(list(tables.values()))
    is_shared = np.array([name in confidences_in(names) for name in names])
    found = {}
    for label, table in tables.items():
        centre, scale = _centre_and_scale(table)
        all_centre, all_scale = _centre_and_scale(pooled)
        found[label] = (
            np.where(is_shared, all_centre, centre),
            np.where(is_shared, all_scale, scale),
        )
    return found


def _centre_and_scale(table: Numbers) -> tuple[Numbers, Numbers]:
    if not len(table):
        return np.zeros(table.shape[1]), np.ones(table.shape[1])
    return table.mean(axis=0), np.maximum(table.std(axis=0), 1e-6)


def _design(
    table: Numbers, names: Sequence[str], folded: Sequence[str], centre: Numbers, scale: Numbers
) -> Numbers:
    rows = [
        design_row(
            dict(zip(names, row, strict=True)), names, folded, centre.tolist(), scale.tolist()
        )
        for row in table.tolist()
    ]
    return np.array(rows, np.float64).reshape(len(table), len(names) + len(folded))


def _fit_of(
    cases: Sequence[QualityCase], label: str, scales: tuple[Numbers, Numbers], linear: Linear
) -> _Fit:
    """The model of a structure, not calibrated yet."""
    gone = [case for case in cases if not is_present(case, label)]
    right = sum(math.isnan(case.truth[label].dice) for case in gone)
    shifts = [
        math.log(case.truth[label].reference_ml / case.truth[label].predicted_ml)
        for case in cases
        if is_present(case, label) and case.truth[label].reference_ml > 0
    ]
    predicted = iter(np.clip(linear.left_out, 0.0, 1.0).tolist())
    left_out = [
        next(predicted) if is_present(case, label) else right / (len(gone) + 1) for case in cases
    ]
    model = StructureModel(
        label=label,
        centre=_kept(scales[0]),
        scale=_kept(scales[1]),
        weights=_kept(linear.weights),
        intercept=rounded(linear.intercept),
        absent=len(gone),
        rightly_absent=right,
        dice_errors=(),
        volume_shift=rounded(float(np.median(shifts))) if shifts else 0.0,
        volume_errors=(),
    )
    return _Fit(model, left_out)


def is_present(case: QualityCase, label: str) -> bool:
    """Return whether the result of a case has a structure."""
    return case.truth[label].predicted_ml > 0 and bool(case.features.get(label))


def _calibrated(
    item: StructureModel,
    cases: Sequence[QualityCase],
    names: Sequence[str],
    folded: Sequence[str],
) -> StructureModel:
    """The same with the errors on the calibration cases that have the structure."""
    dice_errors: list[float] = []
    volume_errors: list[float] = []
    for case in cases:
        if not is_present(case, item.label):
            continue
        truth = case.truth[item.label]
        row = with_case_means(case.features)[item.label]
        dice = predicted_dice(item, row, names, folded)
        difficulty = difficulty_of(dice)
        dice_errors.append(abs(truth.dice - dice) / difficulty)
        volume_errors.append(
            abs(math.log(truth.reference_ml / truth.predicted_ml) - item.volume_shift) / difficulty
            if truth.reference_ml > 0
            else math.inf
        )
    return item.model_copy(
        update={
            "dice_errors": _raised(sorted(dice_errors)),
            "volume_errors": tuple(
                None if math.isinf(error) else _raised([error])[0]
                for error in sorted(volume_errors)
            ),
        }
    )


def _kept(values: Numbers) -> tuple[float, ...]:
    return tuple(rounded(float(value)) for value in values)


def _raised(errors: Sequence[float]) -> tuple[float, ...]:
    """Errors in six digits, rounded up: an interval is never narrower for it."""
    return tuple(
        float(f"{error:.6g}") if float(f"{error:.6g}") >= error else float(f"{error * 1.00001:.6g}")
        for error in errors
    )
