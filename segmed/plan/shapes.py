"""Extent and thickness of the labelled structures of one case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float64]
LabelMap = npt.NDArray[np.integer]

MAX_LABELLED_VOXELS = 4_000_000
"""Larger boxes are thinned out before their connected parts are found, in voxels."""

DENSE_SHARE = 0.5
"""Where labels cover more of a case, the background between them is a structure of its own."""


@dataclass(frozen=True)
class StructureShapes:
    """Sizes of each label's structure, NaN where a label does not occur.

    Attributes:
        extent_mm: Bounding box of the largest connected part, `[labels, axes]`.
        thickness_mm: Mean length of an unbroken run of the label along each axis,
            `[labels, axes]`.
        gap_mm: Mean length of a run of background between labelled voxels along each axis,
            `[axes]`; NaN unless labels cover most of the case.
        together_mm: Bounding box of all labels together, `[axes]`; NaN without any.
    """

    extent_mm: Floats
    thickness_mm: Floats
    gap_mm: Floats
    together_mm: Floats

    def along(self, axes: Sequence[int]) -> StructureShapes:
        """The same sizes with the axes in another order."""
        order = list(axes)
        return StructureShapes(
            self.extent_mm[:, order],
            self.thickness_mm[:, order],
            self.gap_mm[order],
            self.together_mm[order],
        )


def measure_shapes(
    values: LabelMap, label_values: Sequence[int], spacing_mm: Sequence[float]
) -> StructureShapes:
    """Measure every structure of a label map.

    Args:
        values: Label map, `[*spatial]`, non-negative.
        label_values: Values of the structures, in the manifest's order.
        spacing_mm: Voxel edge along each axis, in mm, in array order.

    Returns:
        The sizes, axes in array order.
    """
    edges = np.asarray(spacing_mm, dtype=np.float64)
    found = ndimage.find_objects(values.astype(np.int32, copy=False))
    extent = np.full((len(label_values), values.ndim), np.nan)
    for row, value in enumerate(label_values):
        box = found[value - 1] if value <= len(found) else None
        if box is not None:
            extent[row] = _largest_part(values[box] == value) * edges
    thickness = np.stack([_mean_runs(values, label_values, axis) for axis in range(values.ndim)], 1)
    covered = float((values > 0).mean()) if values.size else 0.0
    gap = np.full(values.ndim, np.nan)
    if covered > DENSE_SHARE:
        gap = np.array([_mean_gap(values > 0, axis) for axis in range(values.ndim)])
    boxes = [found[value - 1] for value in label_values if value <= len(found)]
    together = np.array(_box_around([box for box in boxes if box is not None], values.ndim))
    return StructureShapes(extent, thickness * edges, gap * edges, together * edges)


def _box_around(boxes: Sequence[tuple[slice, ...]], axes: int) -> list[float]:
    """Voxels along each axis of the box around several; NaN without any."""
    if not boxes:
        return [float("nan")] * axes
    return [
        max(part.stop for part in one) - min(part.start for part in one)
        for one in zip(*boxes, strict=True)
    ]


def _largest_part(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Voxels along each axis of the bounding box of a mask's largest connected part."""
    step = int(np.ceil((mask.size / MAX_LABELLED_VOXELS) ** (1 / mask.ndim))) or 1
    thinned = mask[(slice(None, None, step),) * mask.ndim]
    parts, count = ndimage.label(thinned)
    if count <= 1:
        return np.array(mask.shape)
    largest = int(np.bincount(parts.ravel())[1:].argmax())
    box = ndimage.find_objects(parts)[largest]
    return np.minimum([step * (part.stop - part.start) for part in box], mask.shape)


def _mean_runs(values: LabelMap, label_values: Sequence[int], axis: int) -> Floats:
    """Mean run length of each label along one axis, in voxels; NaN where it does not occur."""
    lines = np.moveaxis(values, axis, 0)
    begins = np.concatenate(
        [lines[0].ravel(), lines[1:][lines[1:] != lines[:-1]]]  # first voxel of every run
    )
    length = max(label_values) + 1
    runs = np.bincount(begins, minlength=length)[list(label_values)]
    voxels = np.bincount(values.ravel(), minlength=length)[list(label_values)]
    return np.where(voxels > 0, voxels / np.maximum(runs, 1), np.nan)


def _mean_gap(mask: npt.NDArray[np.bool_], axis: int) -> float:
    """Mean length of the runs outside a mask between voxels of it; NaN without any."""
    lines = np.moveaxis(mask, axis, 0)
    lines = lines[:, lines.any(axis=0)]  # [axis, lines]
    size = len(lines)
    first, last = lines.argmax(axis=0), size - lines[::-1].argmax(axis=0)
    outside = int((last - first).sum()) - int(lines.sum())
    ends = int((lines[:-1] & ~lines[1:]).sum())  # runs of the mask that end before the border
    gaps = ends - int((last < size).sum())
    return outside / gaps if gaps else float("nan")
