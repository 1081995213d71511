"""Effects of one spacing for all cases: sizes out of bounds, and structures that are lost."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil, prod

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmed.geometry import Affine, Grid, nearest_index, resampled_fault, resampled_shape

Box = tuple[tuple[int, int], ...]
"""First and last-plus-one voxel along each stored axis."""

SAFE_VOXELS = 8
"""A structure of so many times the voxels that become one is taken to survive,"""

SAFE_EDGE = 2
"""if it also extends over so many voxels more than become one along each axis."""


@dataclass(frozen=True)
class Extent:
    """Size of one structure of one label map.

    Attributes:
        value: Its label value.
        voxels: How many voxels it has.
        edges: Voxels of its bounding box along each stored axis.
    """

    value: int
    voxels: int
    edges: tuple[int, ...]


def extents_of(values: npt.NDArray[np.integer], known: Collection[int]) -> tuple[Extent, ...]:
    """Extents of the known structures of a label map.

    Args:
        values: Label values, one voxel an entry.
        known: Label values that count.
    """
    bounded = np.where((values > 0) & (values <= max(known, default=0)), values, 0)
    counts = np.bincount(bounded.ravel())
    boxes = ndimage.find_objects(bounded.astype(np.int32, copy=False))
    return tuple(
        Extent(value, int(counts[value]), tuple(edge.stop - edge.start for edge in box))
        for value, box in enumerate(boxes, start=1)
        if box is not None and value in known
    )


def world_axes(affine_ras: Affine, axes: int) -> tuple[int, ...]:
    """World axis (0 left-right, 1 back-front, 2 feet-head) of each stored axis of a volume."""
    if axes < 3:
        return tuple(range(axes))
    return tuple(int(axis) for axis in nib.orientations.io_orientation(affine_ras)[:, 0])


def world_spacing(grid: Grid) -> tuple[float, ...]:
    """Voxel edges in mm, ordered by world axes, so that orientations compare."""
    stored = world_axes(grid.affine_ras, len(grid.shape))
    return tuple(grid.spacing_mm[stored.index(axis)] for axis in range(len(grid.shape)))


def target_of(grid: Grid, spacing_mm: Sequence[float], box: Box | None = None) -> tuple[int, ...]:
    """Voxels along each stored axis at a spacing.

    Args:
        grid: Grid as stored.
        spacing_mm: Voxel edges in order of world axes, in mm.
        box: Part that is kept; all if not given.
    """
    return resampled_shape(_kept(grid, box), grid.spacing_mm, _wanted(grid, spacing_mm))


def size_fault(grid: Grid, spacing_mm: Sequence[float], box: Box | None = None) -> str:
    """Reason why an image has a size out of all bounds at a spacing; empty if it has not.

    Args are those of `target_of`.
    """
    target = target_of(grid, spacing_mm, box)
    return resampled_fault(_kept(grid, box), target, grid.spacing_mm, _wanted(grid, spacing_mm))


def _wanted(grid: Grid, spacing_mm: Sequence[float]) -> tuple[float, ...]:
    stored = world_axes(grid.affine_ras, len(grid.shape))
    return tuple(spacing_mm[axis] for axis in stored)


def _kept(grid: Grid, box: Box | None) -> tuple[int, ...]:
    return grid.shape if box is None else tuple(stop - start for start, stop in box)


def is_at_risk(extents: Sequence[Extent], shape: Sequence[int], target: Sequence[int]) -> bool:
    """Return whether resampling may lose a structure by its size; `lost_values` then decides.

    Args:
        extents: The structures of a label map.
        shape: Voxels along each stored axis.
        target: Voxels along each stored axis after resampling.
    """
    steps = [max(old / new, 1.0) for old, new in zip(shape, target, strict=True)]
    return any(
        extent.voxels < SAFE_VOXELS * prod(steps)
        or any(
            step > 1 and edge < ceil(step) + SAFE_EDGE
            for edge, step in zip(extent.edges, steps, strict=True)
        )
        for extent in extents
    )


def lost_values(
    values: npt.NDArray[np.integer], target: Sequence[int], box: Box | None = None
) -> dict[int, int]:
    """Label values that nearest-neighbour resampling leaves no voxel of, and how many they had.

    Args:
        values: Label values, one voxel an entry.
        target: Voxels along each axis after resampling.
        box: Part that is kept before; all if not given.
    """
    kept = values if box is None else values[tuple(slice(*ends) for ends in box)]
    chosen = [nearest_index(old, new) for old, new in zip(kept.shape, target, strict=True)]
    before, counts = np.unique(values, return_counts=True)
    after = set(np.unique(kept[np.ix_(*chosen)]).tolist())
    pairs = zip(before.tolist(), counts.tolist(), strict=True)
    return {value: count for value, count in pairs if value > 0 and value not in after}
