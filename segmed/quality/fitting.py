"""Fit a quality model on cases with references that the network had not seen.

The patients are divided: one half fits the prediction and the thresholds of review, the other, one
case of each patient, calibrates intervals and promises. Nothing of the second part enters the
first, which is what the guarantees need.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segmed.errors import MetricError
from segmed.quality.case_features import (
    AGREEMENT,
    EXPECTED_DICE,
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

FIT_SHARE = 0.5
"""Share of the patients that fits the prediction."""

FEWEST_PATIENTS = 3
"""Fewer patients than this give no model: there is nothing to fit and to calibrate."""

PENALTIES = (30.0, 100.0, 300.0, 1000.0)
"""Ridge penalties tried; the one with the least error on left-out patients is used."""

FEWEST_FITTED = 20
"""With fewer patients that have a structure one feature is shifted, not all regressed: agreement
of the networks where there are several, else the expected Dice. For left_atrium (12 patients to
fit) the area under the risk-coverage curve is 0.1295 so, and 0.1311 by regression."""

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
    fitted = {label: _Fit(fit, label, names, folded) for label in labels}
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


class _Fit:
    """The prediction of one structure, and of each case of the fit by the other patients.

    Args:
        cases: Cases of the fit.
        label: The structure.
        names: Names of the features.
        folded: Those whose magnitude enters, too.
    """

    def __init__(
        self,
        cases: Sequence[QualityCase],
        label: str,
        names: Sequence[str],
        folded: Sequence[str],
    ) -> None:
        there = [case for case in cases if is_present(case, label)]
        gone = [case for case in cases if not is_present(case, label)]
        right = sum(math.isnan(case.truth[label].dice) for case in gone)
        rows = [with_case_means(case.features)[label] for case in there]
        table = np.array([[row[name] for name in names] for row in rows], np.float64)
        table = table.reshape(len(rows), len(names))
        centre = table.mean(axis=0) if rows else np.zeros(len(names))
        scale = np.maximum(table.std(axis=0), 1e-6) if rows else np.ones(len(names))
        design = np.array(
            [design_row(row, names, folded, centre.tolist(), scale.tolist()) for row in rows]
        ).reshape(len(rows), len(names) + len(folded))
        dice = np.array([case.truth[label].dice for case in there])
        column = list(names).index(AGREEMENT if AGREEMENT in names else EXPECTED_DICE)
        groups = [case.group for case in there]
        if len(set(groups)) < FEWEST_FITTED:
            expected = table[:, column]
            found = _shifted(expected, dice, column, scale, design.shape[1])
        else:
            found = _regressed(design, dice, groups)
        intercept, weights, left_out = found
        shifts = [
            math.log(case.truth[label].reference_ml / case.truth[label].predicted_ml)
            for case in there
            if case.truth[label].reference_ml > 0
        ]
        predicted = iter(np.clip(left_out, 0.0, 1.0).tolist())
        self.left_out: list[float] = [
            next(predicted) if is_present(case, label) else right / (len(gone) + 1)
            for case in cases
        ]
        self.model = StructureModel(
            label=label,
            centre=_kept(centre),
            scale=_kept(scale),
            weights=_kept(weights),
            intercept=rounded(intercept),
            absent=len(gone),
            rightly_absent=right,
            dice_errors=(),
            volume_shift=rounded(float(np.median(shifts))) if shifts else 0.0,
            volume_errors=(),
        )


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


def _regressed(
    design: Numbers, target: Numbers, groups: Sequence[str]
) -> tuple[float, Numbers, Numbers]:
    """Ridge regression by the penalty of the least error on left-out patients.

    Args:
        design: One row a case.
        target: Dice of each.
        groups: Patient of each.

    Returns:
        Intercept, weights, and the prediction of each row by a fit without its patient.
    """
    names = np.array(groups)
    left_out = [_left_out(design, target, names, penalty) for penalty in PENALTIES]
    best = int(np.argmin([float(np.mean((found - target) ** 2)) for found in left_out]))
    intercept, weights = _solve(design, target, PENALTIES[best])
    return intercept, weights, left_out[best]


def _left_out(design: Numbers, target: Numbers, names: Any, penalty: float) -> Numbers:
    """Prediction of each row by a fit on the rows of the other patients, from one fit on all.

    Source:
        Golub, Heath and Wahba 1979, Technometrics 21(2), eq. 3.2 (left-out residuals of ridge
        regression), for blocks of rows.
    """
    centred = design - design.mean(axis=0)
    gram = centred.T @ centred + penalty * np.eye(design.shape[1])
    hat = 1.0 / len(target) + centred @ np.linalg.solve(gram, centred.T)
    residual, found = target - hat @ target, np.zeros(len(target))
    for name in np.unique(names):
        own = np.flatnonzero(names == name)
        block = np.eye(len(own)) - hat[np.ix_(own, own)]
        found[own] = target[own] - np.linalg.solve(block, residual[own])
    return found


def _solve(design: Numbers, target: Numbers, penalty: float) -> tuple[float, Numbers]:
    """Ridge regression with a free intercept."""
    middle = design.mean(axis=0)
    centred = design - middle
    gram = centred.T @ centred + penalty * np.eye(design.shape[1])
    weights = np.linalg.solve(gram, centred.T @ (target - target.mean()))
    return float(target.mean() - middle @ weights), weights


def _shifted(
    expected: Numbers, target: Numbers, column: int, scale: Numbers, width: int
) -> tuple[float, Numbers, Numbers]:
    """One feature that estimates Dice plus its mean error, in the form of `_regressed`."""
    weights = np.zeros(width)
    weights[column] = scale[column]
    error = target - expected
    count, total = len(error), float(error.sum())
    centre = float(expected.mean()) if count else 0.0
    others = (total - error) / max(1, count - 1) if count > 1 else np.zeros(count)
    return centre + total / max(1, count), weights, expected + others


def _kept(values: Numbers) -> tuple[float, ...]:
    return tuple(rounded(float(value)) for value in values)


def _raised(errors: Sequence[float]) -> tuple[float, ...]:
    """Errors in six digits, rounded up: an interval is never narrower for it."""
    return tuple(
        float(f"{error:.6g}") if float(f"{error:.6g}") >= error else float(f"{error * 1.00001:.6g}")
        for error in errors
    )
