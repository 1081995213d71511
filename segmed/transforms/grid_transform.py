"""Grid transform between a prepared tensor and its image, in both directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from segmed.errors import GeometryError
from segmed.geometry import Affine, Grid, reorientation, resampled_fault, resampled_shape


@dataclass(frozen=True, repr=False)
class GridTransform:
    """Transform from an input grid to a target grid: turn axes, crop, resample.

    Attributes:
        grid_in: Grid of the image as stored.
        axes: Input axis that each turned axis was.
        flips: Whether each turned axis runs against its input axis.
        box: First and last-plus-one voxel kept along each turned axis.
        shape: Voxels of the target along each turned axis.
        nearest_axis: Turned axis along which the inverse takes the nearest voxel; None for none.
    """

    grid_in: Grid
    axes: tuple[int, ...]
    flips: tuple[bool, ...]
    box: tuple[tuple[int, int], ...]
    shape: tuple[int, ...]
    nearest_axis: int | None = None

    def __repr__(self) -> str:
        """Grids on either side in one line."""
        return f"GridTransform({self.grid_in} to {self.grid})"

    @property
    def cropped_shape(self) -> tuple[int, ...]:
        """Voxels along each turned axis after cropping, before resampling."""
        return tuple(stop - start for start, stop in self.box)

    def kept(self, turned_axis: int) -> tuple[int, int]:
        """First and last-plus-one voxel of the box, in indices of the input axis."""
        start, stop = self.box[turned_axis]
        size = self.grid_in.shape[self.axes[turned_axis]]
        return (size - stop, size - start) if self.flips[turned_axis] else (start, stop)

    @property
    def grid(self) -> Grid:
        """Grid of the target."""
        return Grid(self.shape, self.grid_in.affine_ras @ self._index_map())

    def record(self) -> dict[str, Any]:
        """Return the fields in the types of JSON."""
        return {
            "shape_in": list(self.grid_in.shape),
            "affine_ras": self.grid_in.affine_ras.tolist(),
            "axes": list(self.axes),
            "flips": list(self.flips),
            "box": [list(span) for span in self.box],
            "shape": list(self.shape),
            "nearest_axis": -1 if self.nearest_axis is None else self.nearest_axis,
        }

    @classmethod
    def from_record(cls, content: Mapping[str, Any]) -> GridTransform:
        """Return the transform of `record`.

        Raises:
            KeyError, TypeError, ValueError: The record is damaged.
        """
        affine = np.asarray(content["affine_ras"], dtype=np.float64)
        nearest = int(content.get("nearest_axis", -1))
        return cls(
            grid_in=Grid(tuple(content["shape_in"]), affine),
            axes=tuple(content["axes"]),
            flips=tuple(bool(flip) for flip in content["flips"]),
            box=tuple((start, stop) for start, stop in content["box"]),
            shape=tuple(content["shape"]),
            nearest_axis=None if nearest < 0 else nearest,
        )

    def _index_map(self) -> Affine:
        """4x4 matrix from target indices to input indices."""
        matrix = np.eye(4)
        dims = len(self.axes)
        matrix[:dims, :dims] = 0.0
        for turned, axis in enumerate(self.axes):
            start, stop = self.box[turned]
            step = (stop - start) / self.shape[turned]
            first = start + 0.5 * step - 0.5
            if self.flips[turned]:
                step, first = -step, self.grid_in.shape[axis] - 1 - first
            matrix[axis, turned] = step
            matrix[axis, 3] = first
        return matrix


@dataclass(frozen=True, repr=False)
class Prepared:
    """Network input of one image, with its grid transform.

    Attributes:
        tensor: float32 `[C, *target]`.
        transform: From the grid of the image as stored to the grid of `tensor`.
    """

    tensor: Tensor
    transform: GridTransform

    def __repr__(self) -> str:
        """Channels and grid in one line."""
        count = len(self.tensor)
        return f"Prepared({count} channel{'s' * (count != 1)}, {self.grid})"

    @property
    def grid_in(self) -> Grid:
        """Grid of the image as stored."""
        return self.transform.grid_in

    @property
    def grid(self) -> Grid:
        """Grid of `tensor`."""
        return self.transform.grid

    @property
    def box(self) -> tuple[tuple[int, int], ...]:
        """First and last-plus-one voxel kept along each turned axis."""
        return self.transform.box


def turned(grid: Grid, orientation: str) -> GridTransform:
    """The transform that only reorients a grid to axis codes; nothing is cropped or resampled.

    Args:
        grid: Grid of the image as stored.
        orientation: Axis codes such as `RAS`; not looked at for 2D images.

    Raises:
        GeometryError: The affine does not say where an axis points.
    """
    dims = len(grid.shape)
    axes, flips = tuple(range(dims)), (False,) * dims
    if dims == 3 and orientation:
        turns = reorientation(grid.affine_ras, orientation)
        if np.isnan(turns).any():
            raise GeometryError(
                "the image's affine does not define the direction of each axis: repair its header",
                reason="no_orientation",
            )
        axes = tuple(int(np.flatnonzero(turns[:, 0] == axis)[0]) for axis in range(dims))
        flips = tuple(bool(turns[axis, 1] < 0) for axis in axes)
    shape = tuple(grid.shape[axis] for axis in axes)
    return GridTransform(grid, axes, flips, tuple((0, size) for size in shape), shape)


def turned_further(
    transform: GridTransform, axes: Sequence[int], flips: Sequence[bool]
) -> GridTransform:
    """The transform followed by another order and direction of its axes.

    Args:
        transform: A transform that does not resample.
        axes: Present axis that each new axis is.
        flips: Whether each new axis runs against it.
    """
    box = []
    for old, flip in zip(axes, flips, strict=True):
        start, stop = transform.box[old]
        size = transform.grid_in.shape[transform.axes[old]]
        box.append((size - stop, size - start) if flip else (start, stop))
    return GridTransform(
        transform.grid_in,
        tuple(transform.axes[old] for old in axes),
        tuple(transform.flips[old] != flip for old, flip in zip(axes, flips, strict=True)),
        tuple(box),
        tuple(transform.shape[old] for old in axes),
    )


def cut(transform: GridTransform, box: Sequence[tuple[int, int]]) -> GridTransform:
    """The transform followed by a crop.

    Args:
        transform: A transform that does not resample.
        box: First and last-plus-one voxel along each axis of its target.
    """
    moved = tuple(
        (first + start, first + stop)
        for (first, _), (start, stop) in zip(transform.box, box, strict=True)
    )
    return replace(transform, box=moved, shape=tuple(stop - start for start, stop in moved))


def resampled(transform: GridTransform, spacing_mm: tuple[float, ...]) -> GridTransform:
    """The transform whose target has, as nearly as whole voxels allow, the given voxel edges.

    Raises:
        GeometryError: The plan has another number of axes than the image, or the image would have
            a size out of all bounds.
    """
    if len(spacing_mm) != len(transform.axes):
        raise GeometryError(
            f"the plan is for {len(spacing_mm)} axes, the image has {len(transform.axes)}: "
            "use a plan made from images of this kind",
            reason="dimensions",
        )
    old = [transform.grid_in.spacing_mm[axis] for axis in transform.axes]
    shape = resampled_shape(transform.cropped_shape, old, spacing_mm)
    if fault := resampled_fault(transform.cropped_shape, shape, old, spacing_mm):
        raise GeometryError(fault, reason="absurd_spacing")
    return GridTransform(transform.grid_in, transform.axes, transform.flips, transform.box, shape)
