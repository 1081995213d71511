"""Steps of the chain for networks that nnU-Net trained; the rules are in `nnunet_rules`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segmed.metatensor import MetaTensor, Transform
from segmed.one_line import OneLine
from segmed.plan.schema import Intensity, Preprocessing
from segmed.transforms.dictionary import EachEntry, EachInvertibleEntry, Keys
from segmed.transforms.grid_step import GridStep, Placement, placed_back
from segmed.transforms.grid_transform import GridTransform, turned_further
from segmed.transforms.intensity import require_rules, with_voxels
from segmed.transforms.nnunet_rules import (
    foreground_mask,
    require_axes,
    resampled_for_network,
    resampled_for_nnunet,
    scaled,
)
from segmed.transforms.resampling import resampled_view
from segmed.transforms.spline_spacing import SplineSpacing


class OrderAxes(GridStep):
    """Bring the stored axes of an image into another order; their directions stay.

    The inverse is exact.

    Args:
        axes: Stored axis that each axis becomes.
        lazy: Refused; see `GridStep`.

    Raises:
        UsageError: `lazy` is set.
    """

    def __init__(self, axes: Sequence[int], *, lazy: bool = False) -> None:
        super().__init__(lazy=lazy)
        self.axes = tuple(axes)

    def __call__(self, image: Tensor) -> MetaTensor:
        """Return a view of the image.

        Args:
            image: `[C, *spatial]`.

        Raises:
            GeometryError: The image has another number of axes.
            UsageError: Operations of MONAI are pending.
        """
        taken, place = self.begun(image)
        require_axes(self.axes, taken.ndim - 1)
        still = (False,) * len(self.axes)
        view = taken.as_tensor().permute(0, *(axis + 1 for axis in self.axes))
        transform = turned_further(place.transform, self.axes, still)
        return self.recorded(taken, view, Placement(transform, still))

    def inverse(self, image: MetaTensor) -> MetaTensor:
        """Return a map on the grid before this transform.

        Args:
            image: `[K, *spatial]`, with the operations of the image.
        """
        bare, _, before = self.taken_back(image)
        back = [self.axes.index(axis) + 1 for axis in range(len(self.axes))]
        return placed_back(bare, bare.as_tensor().permute(0, *back), before)


class OrderAxesd(EachInvertibleEntry):
    """`OrderAxes` of some entries.

    Args:
        keys: The entries.
        axes: See `OrderAxes`.
        allow_missing_keys: Leave out entries that the dictionary lacks.
    """

    def __init__(
        self, keys: Keys, axes: Sequence[int], *, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, OrderAxes(axes), allow_missing_keys)


class ScaleCropped(OneLine, Transform):
    """Scale each channel of a cropped image before it is resampled.

    Args:
        rules: One a channel; `nonzero` measures and scales only voxels of the body, those that are
            not 0 in some channel, and the holes among them.
        more: Further rules of the same channels, whose results follow as channels.
    """

    def __init__(
        self, rules: Sequence[Intensity], more: Sequence[Sequence[Intensity]] = ()
    ) -> None:
        self.rules, self.more = tuple(rules), tuple(map(tuple, more))

    def __call__(self, image: Tensor) -> MetaTensor:
        """Return the scaled image.

        Args:
            image: `[C, *spatial]` in the image's own units.

        Raises:
            ImageError: It has another number of channels than there are rules (`channels`).
        """
        taken = image if isinstance(image, MetaTensor) else MetaTensor(torch.as_tensor(image))
        voxels = taken.as_tensor().to(torch.float32)
        require_rules(voxels, self.rules)
        views = (self.rules, *self.more)
        is_masked = any(rule.nonzero for view in views for rule in view)
        mask = foreground_mask(voxels) if is_masked else None
        pairs = [pair for view in views for pair in zip(voxels, view, strict=True)]
        result = voxels.new_empty((len(pairs), *voxels.shape[1:]))
        for number, (channel, rule) in enumerate(pairs):
            result[number] = scaled(channel, rule, mask)
        return with_voxels(taken, result)


class ScaleCroppedd(EachEntry):
    """`ScaleCropped` of some entries.

    Args:
        keys: The entries.
        rules: See `ScaleCropped`.
        more: See `ScaleCropped`.
        allow_missing_keys: Leave out entries that the dictionary lacks.
    """

    def __init__(
        self,
        keys: Keys,
        rules: Sequence[Intensity],
        more: Sequence[Sequence[Intensity]] = (),
        *,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, ScaleCropped(rules, more), allow_missing_keys)


class NnUNetSpacing(SplineSpacing):
    """Bring an image to the voxel edge of a network that nnU-Net trained.

    Args:
        rules: The plan's.
        order: 3 for images, 0 for label maps.
        lazy: Refused; see `GridStep`.

    Raises:
        UsageError: `lazy` is set.
    """

    def __init__(self, rules: Preprocessing, *, order: int = 3, lazy: bool = False) -> None:
        super().__init__(rules.spacing_mm, order=order, lazy=lazy)
        self.rules = rules

    def target(self, transform: GridTransform) -> GridTransform:
        """Return the transform to the target grid."""
        return resampled_for_nnunet(transform, self.rules)

    def interpolated(
        self, channel: Tensor, transform: GridTransform, flips: Sequence[bool]
    ) -> Tensor:
        """Return one channel `[1, *spatial]` on the target grid."""
        if self.order == 0:
            return resampled_view(channel, transform.shape, order=0, flips=flips)
        return resampled_for_network(channel, transform, self.rules, flips)


class NnUNetSpacingd(EachInvertibleEntry):
    """`NnUNetSpacing` of some entries.

    Args:
        keys: The entries.
        rules: See `NnUNetSpacing`.
        orders: 3 for an image, 0 for a label map; one a key.
        allow_missing_keys: Leave out entries that the dictionary lacks.
    """

    def __init__(
        self,
        keys: Keys,
        rules: Preprocessing,
        orders: Sequence[int],
        *,
        allow_missing_keys: bool = False,
    ) -> None:
        steps = [NnUNetSpacing(rules, order=order) for order in orders]
        super().__init__(keys, steps, allow_missing_keys)


__all__ = [
    "NnUNetSpacing",
    "NnUNetSpacingd",
    "OrderAxes",
    "OrderAxesd",
    "ScaleCropped",
    "ScaleCroppedd",
]
