"""Quality control without a reference: the segmentations that a person should review.

What structures looked like in training gives ranges; a prediction outside them is flagged, and so
is one that the network or its folds were unsure of. A flag is a reason to look, not a verdict.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from segmed.errors import MetricError
from segmed.geometry import ML_PER_CUBIC_MM
from segmed.metrics.lesions import components_of
from segmed.metrics.padded_box import PaddedBox
from segmed.metrics.pair import Labels, as_labels, check_spacing, foreground_box
from segmed.structures import Frozen, LabelClass

OUTLIER_DEVIATIONS = 4.0
"""Robust standard deviations from the training median at which a value is an outlier."""

LEAST_DEVIATION = 0.05
"""Smallest robust standard deviation of a logarithm: with alike training cases, 5 % is nothing."""

FEWEST_CASES = 5
"""With fewer training cases that have the label, no range is drawn from them."""

USUAL = 0.95
"""Share of training cases in which a property must be true to be expected."""

ENTROPY_LIMIT = 0.4
"""Mean entropy inside a structure, as part of its maximum, above which the network was unsure."""

AGREEMENT_LIMIT = 0.7
"""Mean Dice between folds below which they disagree."""


@dataclass(frozen=True)
class Shape:
    """Shape and intensity features of one structure in one case.

    Attributes:
        label: Name of the label.
        volume_ml: Volume in ml (2D: as if 1 mm thick); 0 where it is absent.
        components: Connected components.
        elongation: Longest over shortest principal axis; 1 for a ball.
        compactness: Part of the bounding box that it fills.
        is_cut: Whether it touches the border of the image.
    """

    label: str
    volume_ml: float
    components: int
    elongation: float
    compactness: float
    is_cut: bool


class ShapeRange(Frozen):
    """Range of a structure's features over the training cases.

    Attributes:
        label: Name of the label.
        cases: Training cases that have it.
        present: Part of all training cases that have it.
        cut: Part of those that have it in which it touches the border of the image.
        volume_ml: Lowest and highest volume that is not an outlier, in ml.
        elongation: Lowest and highest elongation that is not an outlier.
        compactness: Lowest and highest compactness that is not an outlier.
        components: Most components seen.
    """

    label: str
    cases: Annotated[int, Field(ge=0)]
    present: Annotated[float, Field(ge=0, le=1)]
    cut: Annotated[float, Field(ge=0, le=1)]
    volume_ml: tuple[float, float]
    elongation: tuple[float, float]
    compactness: tuple[float, float]
    components: Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class QualityFlag:
    """One reason to look at a case.

    Attributes:
        label: Name of the label.
        code: `missing`, `volume`, `shape`, `components`, `cut`, `entropy` or `disagreement`.
        value: What was measured.
        low: Lowest value that would not have been flagged.
        high: Highest value that would not have been flagged.
        message: The reason in one line.
    """

    label: str
    code: str
    value: float
    low: float
    high: float
    message: str


def measure_shapes(
    label_map: npt.ArrayLike | torch.Tensor,
    *,
    labels: Sequence[LabelClass],
    spacing_mm: Sequence[float],
) -> list[Shape]:
    """Measure every structure of a label map.

    Args:
        label_map: Integer label map, `[*spatial]`, 2D or 3D.
        labels: The labels to measure.
        spacing_mm: Voxel edge along each axis, in mm, in array order.

    Returns:
        One shape a label, absent ones with volume 0.

    Raises:
        MetricError: Not integers, or a spacing that does not fit.
    """
    array = as_labels(label_map, "label map")
    check_spacing(array, spacing_mm)
    return [_shape_of(label.mask(array), label.name, tuple(spacing_mm)) for label in labels]


def learn_ranges(cases: Iterable[Sequence[Shape]]) -> tuple[ShapeRange, ...]:
    """Ranges of the training structures.

    A range spans the observed values and those within `OUTLIER_DEVIATIONS` robust deviations of the
    median, on a logarithmic scale.

    Args:
        cases: Shapes of each training case, as from `measure_shapes` on its reference.

    Returns:
        One range a label, in the order of the labels; it is plain data and travels as JSON.

    Raises:
        MetricError: No case.

    Source:
        Median absolute deviation: Leys et al. 2013, J Exp Soc Psychol 49(4).
    """
    by_label: dict[str, list[Shape]] = defaultdict(list)
    for case in cases:
        for shape in case:
            by_label[shape.label].append(shape)
    if not by_label:
        raise MetricError("no training case to learn ranges from; give at least one")
    return tuple(_range_of(label, shapes) for label, shapes in by_label.items())


def check_quality(
    label_map: npt.ArrayLike | torch.Tensor,
    *,
    labels: Sequence[LabelClass],
    spacing_mm: Sequence[float],
    ranges: Sequence[ShapeRange] = (),
    probs: npt.NDArray[Any] | torch.Tensor | None = None,
    members: Sequence[npt.ArrayLike | torch.Tensor] = (),
) -> list[QualityFlag]:
    """Reasons to look at one segmentation.

    Args:
        label_map: Predicted integer label map, `[*spatial]`.
        labels: Its labels.
        spacing_mm: Voxel edge along each axis, in mm.
        ranges: From `learn_ranges`; labels without a range are not held against one.
        probs: Class probabilities, `[classes, *spatial]`, background first, if known; of regions
            `[regions, *spatial]`.
        members: Label maps of the single folds of an ensemble, if known.

    Returns:
        Flags; none where nothing is odd.

    Raises:
        MetricError: Not integers, or shapes that do not fit.
    """
    array = as_labels(label_map, "label map")
    flags = check_shapes(measure_shapes(array, labels=labels, spacing_mm=spacing_mm), ranges)
    if probs is not None:
        flags += _unsure(array, labels, np.asarray(probs))
    if len(members) > 1:
        flags += _disagreeing(labels, [_like(array, member) for member in members])
    return flags


def check_shapes(shapes: Sequence[Shape], ranges: Sequence[ShapeRange]) -> list[QualityFlag]:
    """Reasons to look at a case, by its shapes alone; labels without a range give none."""
    range_of = {known.label: known for known in ranges}
    known_shapes = [shape for shape in shapes if shape.label in range_of]
    return [flag for shape in known_shapes for flag in _against_range(shape, range_of[shape.label])]


def _shape_of(mask: npt.NDArray[np.bool_], label: str, spacing_mm: tuple[float, ...]) -> Shape:
    box = foreground_box(mask)
    if box is None:
        return Shape(label, 0.0, 0, 1.0, 1.0, is_cut=False)
    inside = mask[box]
    padded = PaddedBox(inside.shape, (1,) * inside.ndim, spacing_mm)
    components = components_of(padded.mask(inside, (True,)), padded).sizes.size
    voxels = int(np.count_nonzero(inside))
    return Shape(
        label=label,
        volume_ml=voxels * prod(spacing_mm) * ML_PER_CUBIC_MM,
        components=components,
        elongation=_elongation(inside, spacing_mm),
        compactness=voxels / inside.size,
        is_cut=any(
            n > 1 and (axis.start == 0 or axis.stop == n)
            for axis, n in zip(box, mask.shape, strict=True)
        ),
    )


def _elongation(mask: npt.NDArray[np.bool_], spacing_mm: tuple[float, ...]) -> float:
    """Longest over shortest principal axis, from the second moments of the voxels."""
    axes = range(mask.ndim)
    positions = [np.arange(n) * edge for n, edge in zip(mask.shape, spacing_mm, strict=True)]
    voxels = np.count_nonzero(mask)
    sums = [np.count_nonzero(mask, axis=tuple(b for b in axes if b != a)) for a in axes]
    centre = [sums[a] @ positions[a] / voxels for a in axes]
    moments = np.diag([edge**2 / 12 for edge in spacing_mm])  # a voxel is a box, not a point
    for a in axes:
        moments[a, a] += sums[a] @ (positions[a] - centre[a]) ** 2 / voxels
    for a, b in combinations(axes, 2):
        table = np.count_nonzero(mask, axis=tuple(c for c in axes if c not in (a, b)))
        covariance = (positions[a] - centre[a]) @ table @ (positions[b] - centre[b]) / voxels
        moments[a, b] = moments[b, a] = covariance
    spread = np.linalg.eigvalsh(moments)
    return float(np.sqrt(spread[-1] / spread[0]))


def _range_of(label: str, shapes: Sequence[Shape]) -> ShapeRange:
    there = [shape for shape in shapes if shape.volume_ml > 0]
    cut = sum(shape.is_cut for shape in there) / max(1, len(there))
    return ShapeRange(
        label=label,
        cases=len(there),
        present=len(there) / len(shapes),
        cut=cut,
        volume_ml=_span([shape.volume_ml for shape in there]),
        elongation=_span([shape.elongation for shape in there]),
        compactness=_span([shape.compactness for shape in there]),
        components=max((shape.components for shape in there), default=0),
    )


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Range of the values, widened on a logarithmic scale to the bounds of outliers."""
    if not values:
        return 0.0, 0.0
    logs = np.log(values)
    median = float(np.median(logs))
    deviation = max(LEAST_DEVIATION, 1.4826 * float(np.median(np.abs(logs - median))))
    reach = OUTLIER_DEVIATIONS * deviation
    low, high = min(median - reach, logs.min()), max(median + reach, logs.max())
    return float(np.exp(low)), float(np.exp(high))


def _against_range(shape: Shape, known: ShapeRange) -> list[QualityFlag]:
    label = shape.label
    if known.cases < FEWEST_CASES:
        return []
    if shape.volume_ml == 0:
        missing = f"{label} is absent, and present in {known.present:.0%} of the training cases"
        flag = QualityFlag(label, "missing", 0.0, known.volume_ml[0], known.volume_ml[1], missing)
        return [flag] if known.present >= USUAL else []
    flags = []
    for code, name, value, (low, high) in (
        ("volume", "volume in ml", shape.volume_ml, known.volume_ml),
        ("shape", "elongation", shape.elongation, known.elongation),
        ("shape", "filled part of its box", shape.compactness, known.compactness),
        ("components", "number of parts", shape.components, (1, known.components)),
    ):
        if not low <= value <= high:
            message = f"{label}: {name} is {value:.3g}, in training {low:.3g} to {high:.3g}"
            flags.append(QualityFlag(label, code, float(value), float(low), float(high), message))
    if shape.is_cut and known.cut <= 1 - USUAL:
        message = f"{label} touches the border of the image; it may be cut by the field of view"
        flags.append(QualityFlag(label, "cut", 1.0, 0.0, 0.0, message))
    return flags


def _unsure(
    array: Labels, labels: Sequence[LabelClass], probs: npt.NDArray[Any]
) -> list[QualityFlag]:
    if probs.shape[1:] != array.shape or len(probs) < 2:
        raise MetricError(
            f"probabilities have shape {probs.shape} and the label map {array.shape}; give "
            "[classes, *spatial] with background first"
        )
    flags = []
    has_regions = any(label.region for label in labels)
    for number, label in enumerate(labels):
        inside = probs[:, label.mask(array)].astype(np.float64)
        if not inside.size:
            continue
        if has_regions:  # each has probabilities of its own, to belong and not to
            inside = np.stack([inside[number], 1.0 - inside[number]])
        logs = np.log(np.where(inside > 0, inside, 1.0))
        entropy = float(-(inside * logs).sum(axis=0).mean() / np.log(len(inside)))
        if entropy > ENTROPY_LIMIT:
            message = f"{label.name}: mean entropy is {entropy:.2f} of its maximum"
            flags.append(QualityFlag(label.name, "entropy", entropy, 0.0, ENTROPY_LIMIT, message))
    return flags


def _disagreeing(labels: Sequence[LabelClass], members: Sequence[Labels]) -> list[QualityFlag]:
    flags = []
    for label in labels:
        masks = [label.mask(member) for member in members]
        sizes = [int(np.count_nonzero(mask)) for mask in masks]
        pairs = [(a, b) for a, b in combinations(range(len(masks)), 2) if sizes[a] + sizes[b]]
        dice = [2 * np.count_nonzero(masks[a] & masks[b]) / (sizes[a] + sizes[b]) for a, b in pairs]
        agreement = float(np.mean(dice)) if dice else 1.0
        if agreement < AGREEMENT_LIMIT:
            message = f"{label.name}: the folds agree with a mean Dice of {agreement:.2f}"
            flag = QualityFlag(label.name, "disagreement", agreement, AGREEMENT_LIMIT, 1.0, message)
            flags.append(flag)
    return flags


def _like(array: Labels, member: npt.ArrayLike | torch.Tensor) -> Labels:
    labels = as_labels(member, "label map of a fold")
    if labels.shape != array.shape:
        raise MetricError(
            f"a fold has shape {labels.shape} and the label map {array.shape}; give them on one "
            "grid"
        )
    return labels
