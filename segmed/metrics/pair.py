"""Two label maps on one grid, checked and cropped to what is not background in either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from segmed.errors import MetricError
from segmed.geometry import Grid, require_same_grid

Labels = npt.NDArray[Any]
Box = tuple[slice, ...]

VOXELS_AT_ONCE = 1 << 20
"""Voxels handled at once where whole volumes would cost memory."""

LARGEST_VALUE = 65535
"""Largest label value."""


@dataclass(frozen=True)
class CroppedPair:
    """Prediction and reference as small unsigned integers, cropped, in the order of memory.

    Attributes:
        prediction: Label values, `[*cropped]`, uint8 or uint16.
        reference: Label values on the same voxels.
        spacing_mm: Voxel edge along each axis of the crop, in mm.
        diagonal_mm: Diagonal of the whole image from outer corner to outer corner, in mm.
        voxels: Voxels of the whole image, without unannotated ones.
    """

    prediction: Labels
    reference: Labels
    spacing_mm: tuple[float, ...]
    diagonal_mm: float
    voxels: int


def prepare_pair(
    prediction: npt.ArrayLike | torch.Tensor,
    reference: npt.ArrayLike | torch.Tensor,
    spacing_mm: Sequence[float],
    grids: tuple[Grid, Grid] | None = None,
    *,
    ignore_value: int | None = None,
) -> CroppedPair:
    """Check that two label maps can be compared and crop them to their common foreground.

    Args:
        prediction: Integer label map, `[*spatial]`, 2D or 3D.
        reference: Integer label map on the same grid.
        spacing_mm: Voxel edge along each axis, in mm, in array order.
        grids: Grids of prediction and reference. Two MetaTensors bring their own.
        ignore_value: Value in the reference of unannotated voxels; both become background
            there.

    Returns:
        The pair. Axes may be permuted to the order of memory; no metric depends on it.

    Raises:
        MetricError: Not integers, shapes or spacing that do not fit.
        GeometryError: The two are on different grids.
    """
    first, second = as_labels(prediction, "prediction"), as_labels(reference, "reference")
    if first.shape != second.shape:
        raise MetricError(
            f"prediction and reference have different shapes: {first.shape} and {second.shape}; "
            "bring them to one grid first"
        )
    check_spacing(second, spacing_mm)
    _check_grids(grids or _own_grids(prediction, reference), first.shape, spacing_mm)
    voxels = second.size
    if ignore_value is not None:
        known = second != ignore_value
        voxels = int(np.count_nonzero(known))
        first, second = np.where(known, first, 0), np.where(known, second, 0)
    order = np.argsort([-abs(step) for step in second.strides], kind="stable")
    first, second = first.transpose(order), second.transpose(order)
    edges = tuple(float(spacing_mm[axis]) for axis in order)
    diagonal = float(np.linalg.norm(np.multiply(second.shape, edges)))
    boxes = [box for box in map(foreground_box, (first, second)) if box is not None]
    box = join_boxes(boxes) if boxes else tuple(slice(0, 0) for _ in edges)
    return CroppedPair(_compact(first[box]), _compact(second[box]), edges, diagonal, voxels)


def foreground_box(array: Labels) -> Box | None:
    """The tightest box around everything that is not zero, or None where there is nothing."""
    if array.size == 0:
        return None
    first = next((i for i in range(len(array)) if array[i].any()), None)
    if first is None:
        return None
    last = next(i for i in range(len(array) - 1, -1, -1) if array[i].any())
    flat = np.bitwise_or.reduce(array[first : last + 1], axis=0)
    box = [slice(first, last + 1)]
    for axis in range(flat.ndim):
        others = tuple(a for a in range(flat.ndim) if a != axis)
        hits = np.flatnonzero(flat.any(axis=others))
        box.append(slice(int(hits[0]), int(hits[-1]) + 1))
    return tuple(box)


def join_boxes(boxes: Sequence[Box]) -> Box:
    """The smallest box around some boxes."""
    return tuple(
        slice(min(s.start for s in axis), max(s.stop for s in axis))
        for axis in zip(*boxes, strict=True)
    )


def as_labels(labels: npt.ArrayLike | torch.Tensor, name: str) -> Labels:
    """A label map as an integer array, without a copy where there is one.

    Args:
        labels: Array or tensor of integers or booleans.
        name: What it is, for the message.

    Raises:
        MetricError: It contains anything but integers.
    """
    if isinstance(labels, torch.Tensor):
        labels = labels.detach().cpu().numpy()
    array = np.asarray(labels)
    if array.dtype == bool:
        return array.view(np.uint8)
    if array.dtype.kind not in "iu":
        raise MetricError(
            f"the {name} has type {array.dtype}; label maps are integers: round it, or take the "
            "class of the largest probability"
        )
    return array


def check_spacing(labels: Labels, spacing_mm: Sequence[float]) -> None:
    """Refuse a spacing that does not belong to a 2D or 3D label map.

    Raises:
        MetricError: The number of axes differs, or an edge is not a positive number.
    """
    if labels.ndim not in (2, 3) or labels.ndim != len(spacing_mm):
        raise MetricError(
            f"label maps have {labels.ndim} axes and the spacing {len(spacing_mm)}; give 2 or 3 "
            "spatial axes without a channel axis, and one spacing for each"
        )
    if not all(np.isfinite(edge) and edge > 0 for edge in spacing_mm):
        raise MetricError(f"the spacing {tuple(spacing_mm)} mm must be positive on every axis")


def _own_grids(prediction: object, reference: object) -> tuple[Grid, Grid] | None:
    affines = [getattr(labels, "affine", None) for labels in (prediction, reference)]
    if not all(isinstance(affine, torch.Tensor) for affine in affines):
        return None
    shapes = [tuple(getattr(labels, "shape", ())) for labels in (prediction, reference)]
    first, second = (
        Grid(shape, np.asarray(affine, dtype=np.float64))
        for shape, affine in zip(shapes, affines, strict=True)
    )
    return first, second


def _check_grids(
    grids: tuple[Grid, Grid] | None, shape: tuple[int, ...], spacing_mm: Sequence[float]
) -> None:
    if grids is None:
        return
    require_same_grid(*grids, names=("prediction", "reference"))
    if grids[1].shape != shape:
        raise MetricError(
            f"the grid has shape {grids[1].shape} and the label maps have {shape}; give the grid "
            "that belongs to them"
        )
    edges = grids[1].spacing_mm
    if not np.allclose(edges, spacing_mm, rtol=1e-3):
        raise MetricError(
            f"the grid has a spacing of {edges} mm and the caller {tuple(spacing_mm)} mm; give "
            "the grid's own"
        )


def _compact(labels: Labels) -> Labels:
    """Values 0..65535 as uint8 or uint16 in the order of memory; any other is background."""
    if labels.dtype in (np.uint8, np.uint16):
        in_order = all(a >= b > 0 for a, b in pairwise(labels.strides))
        is_dense = labels.strides[-1] == labels.itemsize
        return labels if in_order and is_dense else np.ascontiguousarray(labels)
    if prod(labels.shape) == 0:
        return np.zeros(labels.shape, np.uint8)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > LARGEST_VALUE:
        labels = np.where((labels < 0) | (labels > LARGEST_VALUE), 0, labels)
        high = int(labels.max())
    return np.ascontiguousarray(labels, dtype=np.uint8 if high <= 255 else np.uint16)
