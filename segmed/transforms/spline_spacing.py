"""Images and label maps at another voxel edge, by exact splines, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor

from segmed.doors import checked
from segmed.errors import UsageError
from segmed.metatensor import MetaTensor
from segmed.transforms.grid_step import GridStep, Placement, placed_back
from segmed.transforms.grid_transform import GridTransform, resampled, turned_further
from segmed.transforms.inverse import Slab, inverse_boxes
from segmed.transforms.resampling import resample, resampled_view
from segmed.transforms.room import require_room, resampling_bytes

ORDERS = (0, 1, 3)
"""Nearest neighbour, linear, cubic B-spline."""


class SplineSpacing(GridStep):
    """Bring an image to a voxel edge by cubic B-splines with their prefilter, axis by axis.

    The new grid has the field of view of the old one. An axis at the target edge already is not
    interpolated. Axes that `Reorient(mirror=False)` left are mirrored on the way. The inverse takes
    maps of probabilities back by linear interpolation (floating-point maps), or by nearest
    neighbour (integers).

    Args:
        spacing_mm: Voxel edge along each axis.
        order: 0 nearest neighbour (label maps), 1 linear, 3 cubic; one for all axes, or one each.
        lazy: Refused; see `GridStep`.

    Raises:
        UsageError: `lazy` is set, an edge is not positive, an order is unknown, or there is
            another number of orders than of edges.
    """

    @checked()
    def __init__(
        self, spacing_mm: Sequence[float], *, order: int | Sequence[int] = 3, lazy: bool = False
    ) -> None:
        super().__init__(lazy=lazy)
        self.spacing_mm = tuple(float(edge) for edge in spacing_mm)
        self.order = order if isinstance(order, int) else tuple(order)
        if not all(0 < edge < inf for edge in self.spacing_mm):
            raise UsageError(f"spacing_mm must be positive numbers, got {self.spacing_mm}")
        if not isinstance(self.order, int) and len(self.order) != len(self.spacing_mm):
            raise UsageError(
                f"there are {len(self.order)} orders for {len(self.spacing_mm)} axes: give one for "
                "all axes, or one each"
            )
        for one in [order] if isinstance(order, int) else order:
            if one not in ORDERS:
                raise UsageError(f"order must be one of {ORDERS}, got {one!r}")

    def __call__(self, image: Tensor) -> MetaTensor:
        """Return the image at the voxel edge.

        Args:
            image: `[C, *spatial]`; floating point unless the order is 0.

        Returns:
            `[C, *target]`, contiguous, in memory of its own.

        Raises:
            GeometryError: The image has another number of axes, or a spacing that gives it a size
                out of all bounds.
            ImageError: It needs more memory than is free (`out_of_memory`).
            UsageError: The shape is not that of an image, it has integers to interpolate, or
                operations of MONAI are pending.
        """
        taken, place = self.begun(image)
        if self._interpolates and not taken.is_floating_point():
            raise UsageError(
                f"{type(self).__name__} of order {self.order} takes floating-point voxels, got "
                f"{taken.dtype}: convert them (EnsureType), or give order=0 for a label map"
            )
        flips = place.unmirrored
        transform = self.target(turned_further(place.transform, range(len(flips)), flips))
        voxels = taken.as_tensor()
        target = " x ".join(map(str, transform.shape))
        need = resampling_bytes(transform, len(voxels))
        require_room(need, f"the image, resampled to {target} voxels,")
        result = torch.empty((len(voxels), *transform.shape), dtype=voxels.dtype)
        for number in range(len(voxels)):
            channel = voxels[number : number + 1]
            result[number] = self.interpolated(channel, transform, flips)[0]
        return self.recorded(taken, result, Placement(transform, (False,) * len(flips)))

    def target(self, transform: GridTransform) -> GridTransform:
        """Return the transform to the target grid from one that does not resample."""
        return resampled(transform, self.spacing_mm)

    def interpolated(
        self, channel: Tensor, transform: GridTransform, flips: Sequence[bool]
    ) -> Tensor:
        """Return one channel on the target grid.

        Args:
            channel: `[1, *spatial]`.
            transform: To the target grid.
            flips: Axes that are mirrored on the way.
        """
        return resampled_view(channel, transform.shape, order=self.order, flips=flips)

    @property
    def _interpolates(self) -> bool:
        return self.order != 0 if isinstance(self.order, int) else any(self.order)

    def inverse(self, image: MetaTensor) -> MetaTensor:
        """Return a map on the grid before this transform.

        Args:
            image: `[K, *target]`, with the operations of the image that was resampled.
        """
        bare, after, before = self.taken_back(image)
        voxels, start = bare.as_tensor(), before.transform
        if voxels.is_floating_point():
            return placed_back(bare, between(voxels, after.transform, start), before)
        flips = [now != then for now, then in zip(after.transform.flips, start.flips, strict=True)]
        return placed_back(bare, resample(voxels, start.shape, order=0, flips=flips), before)


def between(voxels: Tensor, after: GridTransform, before: GridTransform) -> Tensor:
    """Return a map on the grid before resampling, linear between voxel centres.

    Args:
        voxels: `[K, *target]`, floating point.
        after: From the stored grid to the grid of the map.
        before: From the stored grid to the grid before resampling.
    """
    spans = [before.kept(turned) for turned in range(len(before.axes))]
    stored = {axis: spans[turned] for turned, axis in enumerate(before.axes)}
    sizes = [stored[axis][1] - stored[axis][0] for axis in range(len(spans))]
    whole = voxels.new_empty((len(voxels), *sizes))
    for box in inverse_boxes([Slab(0, voxels)], after, 0):
        region = [
            slice(part.start - stored[axis][0], part.stop - stored[axis][0])
            for axis, part in enumerate(box.region)
        ]
        whole[(slice(None), *region)] = box.probs
    view = whole.permute(0, *(axis + 1 for axis in before.axes))
    flips = [axis + 1 for axis, flip in enumerate(before.flips) if flip]
    return view.flip(flips) if flips else view
