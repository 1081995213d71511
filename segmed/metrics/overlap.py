"""Counts of voxels, and the scores that are ratios of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segmed.encoding import LabelEncoding
from segmed.metrics.pair import LARGEST_VALUE, VOXELS_AT_ONCE, Labels


@dataclass(frozen=True)
class Counts:
    """Voxels of one structure.

    Attributes:
        prediction: Voxels in the prediction.
        reference: Voxels in the reference.
        common: Voxels in both (true positives).
    """

    prediction: int
    reference: int
    common: int


def confusion_matrix(
    prediction: Labels, reference: Labels, values: Sequence[int]
) -> npt.NDArray[np.int64]:
    """Voxels for each pair of predicted and true class, in one pass for all labels.

    Args:
        prediction: Label values, `[*spatial]`, uint8 or uint16.
        reference: Label values on the same grid.
        values: Label values of classes 1, 2, ...; every other value is class 0.

    Returns:
        Counts, `[predicted class, true class]`.

    Source:
        Taha and Hanbury 2015, BMC Medical Imaging 15:29, section "Overlap based metrics".
    """
    num_classes = len(values) + 1
    to_class = np.zeros(LARGEST_VALUE + 1, np.uint16 if num_classes > 256 else np.uint8)
    to_class[list(values)] = np.arange(1, num_classes)
    is_plain = list(values) == list(range(1, num_classes))
    code = np.uint8 if num_classes**2 <= 256 else np.uint32
    total = np.zeros(num_classes**2, np.int64)
    planes = max(1, VOXELS_AT_ONCE // max(1, prediction[:1].size))
    for start in range(0, len(prediction), planes):
        p, t = prediction[start : start + planes], reference[start : start + planes]
        if not is_plain or max(p.max(), t.max()) >= num_classes:
            p, t = to_class[p], to_class[t]
        pairs = np.multiply(p, num_classes, dtype=code, casting="unsafe")
        pairs += t.astype(code, copy=False)
        total += np.bincount(pairs.reshape(-1), minlength=num_classes**2)
    return total.reshape(num_classes, num_classes)


def counts_of(matrix: npt.NDArray[np.int64], classes: Sequence[int]) -> Counts:
    """Counts of the union of some classes, from the confusion matrix."""
    picked = list(classes)
    return Counts(
        prediction=int(matrix[picked].sum()),
        reference=int(matrix[:, picked].sum()),
        common=int(matrix[np.ix_(picked, picked)].sum()),
    )


def structure_counts(predicted: Tensor, target: Tensor, encoding: LabelEncoding) -> list[Counts]:
    """Counts of annotated voxels of each structure, on the device of the maps.

    Args:
        predicted: Class indices, any shape.
        target: Class indices, the same shape.
        encoding: Their meaning.

    Returns:
        Counts in the order of the structures. The time does not grow with the number of classes
        that do not overlap.
    """
    if encoding.ignore_index is not None:
        is_known = target != encoding.ignore_index
        predicted, target = predicted[is_known], target[is_known]
    size = len(encoding.values)
    if encoding.has_regions:
        pairs = torch.bincount((target * size + predicted).flatten(), minlength=size**2)
        confusion = pairs.view(size, size)
        inside = [list(members) for members in encoding.members]
        found = torch.stack([confusion[:, one].sum() for one in inside])
        wanted = torch.stack([confusion[one].sum() for one in inside])
        both = torch.stack([confusion[one][:, one].sum() for one in inside])
    else:
        found = torch.bincount(predicted.flatten(), minlength=size)[1:]
        wanted = torch.bincount(target.flatten(), minlength=size)[1:]
        both = torch.bincount(target[predicted == target], minlength=size)[1:]
    return [Counts(*row) for row in torch.stack([found, wanted, both], dim=1).tolist()]


def dice(counts: Counts) -> float:
    """Dice coefficient; NaN where both are empty. Source: Dice 1945, Ecology 26(3)."""
    return ratio(2 * counts.common, counts.prediction + counts.reference)


def iou(counts: Counts) -> float:
    """Intersection over union; NaN where both are empty. Source: Jaccard 1912."""
    return ratio(counts.common, counts.prediction + counts.reference - counts.common)


def precision(counts: Counts) -> float:
    """Fraction of the predicted voxels that are right; 0 where only the prediction is empty."""
    return ratio(counts.common, counts.prediction or counts.reference)


def recall(counts: Counts) -> float:
    """Fraction of the true voxels that were found; 0 where only the reference is empty."""
    return ratio(counts.common, counts.reference or counts.prediction)


def f1(counts: Counts) -> float:
    """Harmonic mean of precision and recall; 0 where either is 0. Source: van Rijsbergen 1979."""
    exact, found = precision(counts), recall(counts)
    return ratio(2 * exact * found, exact + found) if exact + found != 0 else 0.0


def volume_similarity(counts: Counts) -> float:
    """1 - |P - R| / (P + R); NaN where both are empty. Source: Taha and Hanbury 2015."""
    return 1.0 - ratio(
        abs(counts.prediction - counts.reference), counts.prediction + counts.reference
    )


def ratio(part: float, whole: float) -> float:
    """A quotient that is NaN where nothing is divided by nothing."""
    return part / whole if whole else float("nan")
