"""Linear prediction of Dice from few cases: unit weights first, corrections as far as cases allow.

With a dozen patients, fitted weights of a dozen features are mostly noise, and so is a choice among
fits by their errors: a mean with unit weights of features whose direction is known beforehand
predicts better. So the prediction is built in three steps, each of which adds only what the cases
show, and none of which chooses anything by looking at errors:

1. The **confidence** of a structure is the mean of two standardised features (`confidences_in`).
   One line for all structures leads from it to Dice: two fitted numbers.
2. Each structure is **offset** from this line, shrunk by how much structures differ beyond chance.
3. A ridge regression of the errors that are left on all features **corrects** it. Its penalty is
   fixed beforehand: that of weights which together explain `EXPLAINED` of these errors.

Every step is fitted on errors that the steps before make on left-out patients.

Source:
    Dawes 1979, American Psychologist 34(7) (unit weights); Efron and Morris 1975, JASA 70(350)
    (shrunk offsets); Hoerl and Kennard 1970, Technometrics 12(1), and Golub, Heath and Wahba 1979,
    Technometrics 21(2), eq. 3.2 (ridge regression and its left-out errors).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segmed.quality.case_features import AGREEMENT, ENTROPY, EXPECTED_DICE

EXPLAINED = 0.1
"""Share of the variance of the errors of confidence that the other features are expected to
explain: with p features the penalty is p (1 - share) / share."""

LEAST_SLOPE = 0.01
"""Least Dice by unit of confidence, so that cases keep an order where few cases show none."""

Numbers = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """Cases of the fit that have a structure.

    Attributes:
        design: One row a case, one column a feature.
        dice: Dice of each.
        patients: Patient of each.
    """

    design: Numbers
    dice: Numbers
    patients: Sequence[str]


@dataclass(frozen=True)
class Linear:
    """Linear prediction of one structure.

    Attributes:
        intercept: Added to the weighted sum.
        weights: Weight of each column of the design.
        left_out: Prediction of each example by a fit without its patient.
    """

    intercept: float
    weights: Numbers
    left_out: Numbers


def confidences_in(names: Collection[str]) -> dict[str, float]:
    """Features of the confidence, 1 where more of it is better, -1 where less is.

    One of each kind of evidence: agreement of the networks, and entropy of their probabilities.
    With one network, two readings of its probabilities.

    Args:
        names: Features that there are.
    """
    return {AGREEMENT if AGREEMENT in names else EXPECTED_DICE: 1.0, ENTROPY: -1.0}


def confidence_weights(names: Sequence[str], width: int) -> Numbers:
    """Weights of the columns of a design in the confidence.

    Args:
        names: Names of the first columns.
        width: Number of columns.
    """
    signs = confidences_in(names)
    found = np.zeros(width)
    found[: len(names)] = [signs.get(name, 0.0) for name in names]
    number = int(np.count_nonzero(found))
    return found / max(1, number)


def fit_structures(examples: Sequence[Examples], confidence: Numbers) -> list[Linear]:
    """Fit the structures of a model together.

    Args:
        examples: Of each structure; one may have none.
        confidence: From `confidence_weights`.
    """
    known = sorted({name for one in examples for name in one.patients})
    numbers = {name: number for number, name in enumerate(known)}
    owner = [np.array([numbers[n] for n in one.patients], np.int64) for one in examples]
    sure = [one.design @ confidence for one in examples]
    dice = [one.dice for one in examples]
    level, slope, lines = _line(sure, dice, owner, len(known))
    errors = [d - line for d, line in zip(dice, lines, strict=True)]
    offsets, left_offsets = _offsets(errors, owner, len(known))
    base = [line + shift for line, shift in zip(lines, left_offsets, strict=True)]
    errors = [d - line for d, line in zip(dice, base, strict=True)]
    fits = [
        _corrections(one.design, error, its)
        for one, error, its in zip(examples, errors, owner, strict=True)
    ]
    return [
        Linear(level + offset + shift, slope * confidence + weights, line + correction)
        for offset, line, (shift, weights, correction) in zip(offsets, base, fits, strict=True)
    ]


def _line(
    sure: Sequence[Numbers],
    dice: Sequence[Numbers],
    owner: Sequence[Places],
    known: int,
) -> tuple[float, float, list[Numbers]]:
    """One line from confidence to Dice; its level, slope, and values by fits without a patient."""
    x, y, of = np.concatenate(sure), np.concatenate(dice), np.concatenate(owner)
    sums = np.array(
        [np.bincount(of, weights=w, minlength=known) for w in (np.ones_like(x), x, y, x * x, x * y)]
    )
    total = sums.sum(axis=1, keepdims=True)
    level, slope = _least_squares(total)
    others, slopes = _least_squares(total - sums)
    values = [others[its] + slopes[its] * one for one, its in zip(sure, owner, strict=True)]
    return float(level[0]), float(slope[0]), values


def _least_squares(sums: Numbers) -> tuple[Numbers, Numbers]:
    """Levels and slopes of lines by their sums of 1, x, y, x x and x y, one column a line."""
    number = np.maximum(sums[0], 1.0)
    x, y = sums[1] / number, sums[2] / number
    variance = sums[3] / number - x * x
    shared = sums[4] / number - x * y
    slope = np.maximum(shared / np.maximum(variance, 1e-9), LEAST_SLOPE)
    return y - slope * x, slope


def _offsets(
    errors: Sequence[Numbers], owner: Sequence[Places], known: int
) -> tuple[list[float], list[Numbers]]:
    """Offset of each structure from the line, and that by the cases without each patient."""
    means = np.array([float(error.mean()) if len(error) else 0.0 for error in errors])
    chance = np.array(
        [float(error.var(ddof=1)) / len(error) if len(error) > 1 else math.inf for error in errors]
    )
    seen = np.isfinite(chance)
    between = 0.0
    if np.count_nonzero(seen) > 1:
        between = max(0.0, float(means[seen].var(ddof=1) - chance[seen].mean()))
    shares = [between / (between + c) if between and math.isfinite(c) else 0.0 for c in chance]
    left = []
    for error, its, share in zip(errors, owner, shares, strict=True):
        count = np.bincount(its, minlength=known)
        total = np.bincount(its, weights=error, minlength=known)
        others = np.maximum(count.sum() - count, 1)
        left.append(share * ((total.sum() - total) / others)[its])
    return [share * float(mean) for share, mean in zip(shares, means, strict=True)], left


def _corrections(design: Numbers, error: Numbers, owner: Places) -> tuple[float, Numbers, Numbers]:
    """Ridge regression of errors: its shift and weights, and its values by left-out patients."""
    width = design.shape[1]
    if not len(error):
        return 0.0, np.zeros(width), np.zeros(0)
    middle = design.mean(axis=0)
    centred = design - middle
    penalty = width * (1.0 - EXPLAINED) / EXPLAINED
    gram = centred.T @ centred + penalty * np.eye(width)
    projected = np.linalg.solve(gram, centred.T)
    weights, hat = projected @ error, centred @ projected
    residual, found = error - hat @ error, np.zeros(len(error))
    for number in np.unique(owner):
        own = np.flatnonzero(owner == number)
        block = np.eye(len(own)) - hat[np.ix_(own, own)]
        found[own] = error[own] - np.linalg.solve(block, residual[own])
    return -float(middle @ weights), weights, found
