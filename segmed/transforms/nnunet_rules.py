"""Preprocessing of networks that nnU-Net trained: its rules where they differ from segmed's.

Axes are those of the file (or RAS), in nnU-Net's order. Statistics under a mask are those of the
voxels that are not 0 in some channel, holes filled. Cubic interpolation continues an image as its
outermost voxels and never leaves the range of its values. An axis that is much coarser than the
others, in the image or in the target, takes the nearest slice, on the way to the network and back.

Source:
    nnunetv2 2.8.1, `DefaultPreprocessor` and `resample_data_or_seg_to_shape`; Isensee et al. 2021,
    Nature Methods 18, supplementary note 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from segmed.errors import GeometryError
from segmed.geometry import Grid, resampled_fault
from segmed.plan.schema import Intensity, Preprocessing
from segmed.transforms.grid_transform import GridTransform, turned, turned_further
from segmed.transforms.intensity import clip, ct_numbers
from segmed.transforms.resampling import resampled_view

ANISOTROPY = 3.0
"""An axis counts as coarse where its voxel edge is more than this many times the finest one."""

LEAST_STD = 1e-8
"""Standard deviations below this count as this."""


def require_axes(axes: Sequence[object], found: int) -> None:
    """Check the number of axes of an image.

    Raises:
        GeometryError: The plan orders another number of axes.
    """
    if len(axes) != found:
        raise GeometryError(
            f"the plan is for {len(axes)} axes, the image has {found}: use a plan made from images "
            "of this kind",
            reason="dimensions",
        )


def turned_for_nnunet(grid: Grid, rules: Preprocessing) -> GridTransform:
    """The transform that only orders an image's axes.

    Raises:
        GeometryError: The image has another number of axes than the plan.
    """
    if rules.orientation:
        return turned(grid, rules.orientation)
    require_axes(rules.axes, len(grid.shape))
    return turned_further(turned(grid, ""), rules.axes, (False,) * len(rules.axes))


def resampled_for_nnunet(transform: GridTransform, rules: Preprocessing) -> GridTransform:
    """The transform whose target has the plan's voxel edges.

    Raises:
        GeometryError: The image would have a size out of all bounds.
    """
    old, new = voxel_edges(transform, rules)
    sizes = transform.cropped_shape
    # In nnU-Net's order of operations, so that halves round alike.
    shape = tuple(
        max(round(have / want * size), 1) for size, have, want in zip(sizes, old, new, strict=True)
    )
    if fault := resampled_fault(sizes, shape, old, new):
        raise GeometryError(fault, reason="absurd_spacing")
    return replace(transform, shape=shape, nearest_axis=coarse_axis(new, old))


def voxel_edges(transform: GridTransform, rules: Preprocessing) -> tuple[list[float], list[float]]:
    """Voxel edges before and after resampling, along the transform's axes.

    Raises:
        GeometryError: The plan has another number of axes than the image.
    """
    require_axes(rules.spacing_mm, len(transform.axes))
    old = [transform.grid_in.spacing_mm[axis] for axis in transform.axes]
    new = list(rules.spacing_mm)
    if rules.kept_axis is not None:
        new[rules.kept_axis] = old[rules.kept_axis]
    return old, new


def coarse_axis(from_mm: Sequence[float], to_mm: Sequence[float]) -> int | None:
    """The axis that is resampled apart: the coarse one of the source, else of the target."""
    for edges in (from_mm, to_mm):
        if max(edges) / min(edges) > ANISOTROPY:
            coarsest = [axis for axis, edge in enumerate(edges) if max(edges) / edge == 1]
            return coarsest[0] if len(coarsest) == 1 else None
    return None


def foreground_mask(voxels: Tensor) -> Tensor:
    """Voxels that are not 0 in some channel, with their holes, `[*spatial]` of `[C, *spatial]`."""
    from scipy import ndimage  # noqa: PLC0415 - only nnU-Net's plans need it

    filled = ndimage.binary_fill_holes((voxels != 0).any(dim=0).numpy())
    return torch.from_numpy(np.asarray(filled))


def scaled(channel: Tensor, rule: Intensity, mask: Tensor | None) -> Tensor:
    """One channel of one cropped image on the network's scale.

    Args:
        channel: `[*spatial]`, in the image's own units.
        rule: The plan's.
        mask: From `foreground_mask` of the cropped image, for rules with `nonzero`.
    """
    if rule.scheme == "none":
        return channel
    if rule.scheme == "ct":
        mean, std = ct_numbers(rule)
        return (clip(channel, rule.low, rule.high) - mean) / max(std, LEAST_STD)
    if rule.scheme == "unit":
        low = float(channel.min()) if rule.low is None else rule.low
        shifted = channel - low
        high = float(shifted.max()) if rule.high is None else rule.high - low
        return shifted / max(high, LEAST_STD)
    inside = channel if mask is None or not rule.nonzero else channel[mask]
    spread, centre = torch.std_mean(inside.double(), correction=0)
    standard = (channel - float(centre)) / max(float(spread), LEAST_STD)
    if mask is None or not rule.nonzero:
        return standard
    return torch.where(mask, standard, channel)


def resampled_for_network(
    channel: Tensor, transform: GridTransform, rules: Preprocessing, flips: Sequence[bool]
) -> Tensor:
    """One scaled channel on the target grid.

    Args:
        channel: `[1, *cropped]`, its axes in the target's order.
        transform: To the target grid.
        rules: The plan's.
        flips: Axes that are mirrored on the way.

    Returns:
        `[1, *target]`.
    """
    coarse = coarse_axis(*voxel_edges(transform, rules))
    orders = [0 if axis == coarse else 3 for axis in range(len(transform.shape))]
    if transform.shape == transform.cropped_shape:
        return resampled_view(channel, transform.shape, order=orders, flips=flips)
    others = [axis + 1 for axis in range(len(transform.shape)) if axis != coarse]
    within = list(transform.shape)
    if coarse is not None:
        within[coarse] = transform.cropped_shape[coarse]
    low, high = channel.amin(others, keepdim=True), channel.amax(others, keepdim=True)
    smooth = resampled_view(channel, within, order=orders, ends="edge").clamp(low, high)
    return resampled_view(smooth, transform.shape, order=orders, flips=flips)
