"""Axes of an image in the order and direction of axis codes."""

from __future__ import annotations

from torch import Tensor

from segmed.doors import checked
from segmed.errors import UsageError
from segmed.io.read import grid_of
from segmed.metatensor import MetaTensor
from segmed.transforms.grid_step import GridStep, Placement, placed_back
from segmed.transforms.grid_transform import turned, turned_further

DIRECTIONS = {"L": "x", "R": "x", "A": "y", "P": "y", "I": "z", "S": "z"}
"""Axis of the patient of each axis code."""


class Reorient(GridStep):
    """Bring the axes of an image to axis codes; voxels are moved, never interpolated.

    The inverse is exact.

    Args:
        orientation: Axis codes such as `RAS`; empty, or with a 2D image, nothing changes.
        mirror: False orders the axes alone, which copies nothing, and leaves their direction to
            `SplineSpacing`, which mirrors at no extra cost. The affine is right in both cases.
        lazy: Refused; see `GridStep`.

    Raises:
        UsageError: `lazy` is set, or the codes do not name each of three directions once.
    """

    @checked()
    def __init__(self, orientation: str, *, mirror: bool = True, lazy: bool = False) -> None:
        super().__init__(lazy=lazy)
        named = {DIRECTIONS.get(code) for code in orientation}
        if orientation and (len(orientation) != 3 or named != set(DIRECTIONS.values())):
            raise UsageError(
                f"orientation must be three codes, one each of L or R, A or P, I or S, such as "
                f"RAS, or empty; got {orientation!r}"
            )
        self.orientation = orientation
        self.mirror = mirror

    def __call__(self, image: Tensor) -> MetaTensor:
        """Return the image with its axes in order.

        Args:
            image: `[C, *spatial]`.

        Raises:
            GeometryError: The affine has no direction for an axis.
            UsageError: The shape is not that of an image, or operations of MONAI are pending.
        """
        taken, place = self.begun(image)
        turn = turned(grid_of(taken), self.orientation)
        flips = turn.flips if self.mirror else (False,) * len(turn.flips)
        view = taken.as_tensor().permute(0, *(axis + 1 for axis in turn.axes))
        if any(flips):
            view = view.flip([axis + 1 for axis, flip in enumerate(flips) if flip])
        none = (False,) * len(flips)
        left = (none if self.mirror else turn.flips) if self.orientation else place.unmirrored
        transform = turned_further(place.transform, turn.axes, flips)
        return self.recorded(taken, view, Placement(transform, left))

    def inverse(self, image: MetaTensor) -> MetaTensor:
        """Return a map on the grid before this transform.

        Args:
            image: `[K, *spatial]`, with the operations of the image that was reoriented.
        """
        bare, after, before = self.taken_back(image)
        order = [before.transform.axes.index(axis) for axis in after.transform.axes]
        view = bare.as_tensor()
        flips = [
            flip != before.transform.flips[old]
            for flip, old in zip(after.transform.flips, order, strict=True)
        ]
        if any(flips):
            view = view.flip([axis + 1 for axis, flip in enumerate(flips) if flip])
        back = view.permute(0, *(order.index(axis) + 1 for axis in range(len(order))))
        return placed_back(bare, back, before)
