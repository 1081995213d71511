"""Patches gathered straight out of the voxels on the device: one pass cuts, moves and mirrors.

Shapes and calls do not depend on the draw, so a step can be captured as a graph. The result is that
of `make_batch` and `RandAugment` from the same draw, up to the rounding of coordinates and
voxels beyond 1.6 times the patch.

A step at 128 cubed is bound by memory here, so positions and weights are kept for each axis, and
corners are mixed axis by axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from segmed.plan.schema import Plan
from segmed.training.resident import VoxelStore
from segmed.training.shading import SHADES
from segmed.transforms.augmentation import ELASTIC_GRID


@dataclass(frozen=True)
class _Split:
    """The columns of `PatchRows.floats`."""

    fill: Tensor
    centre: Tensor
    matrix: Tensor
    bend: Tensor
    shades: Tensor


def _split(floats: Tensor, *, volume_axes: int, axes: int) -> _Split:
    count = len(floats)
    widths = [1, volume_axes, axes**2, axes * ELASTIC_GRID**axes, len(SHADES) + axes]
    fill, centre, matrix, bend, shades = torch.split(floats, widths, dim=1)
    grid = [ELASTIC_GRID] * axes
    return _Split(
        fill, centre, matrix.view(count, axes, axes), bend.view(count, axes, *grid), shades
    )


class _Neighbour(NamedTuple):
    """The voxels below or above the points of a patch along one axis of the volume.

    Attributes:
        rows: Their part of the position in the flat tensor; of the border's beyond it.
        weight: Their share of the points' values; 0 beyond the border.
        is_inside: Whether they are in the volume.
    """

    rows: Tensor
    weight: Tensor
    is_inside: Tensor


class _Line(NamedTuple):
    """Both neighbours of the points along one axis, and whether the upper one is the nearer."""

    below: _Neighbour
    above: _Neighbour
    is_upper: Tensor


def gather_patches(
    voxels: VoxelStore, places: Tensor, floats: Tensor, plan: Plan
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut and move the patches of a batch, all on one device.

    Args:
        voxels: The cases, or the parts of them that the batch needs.
        places: From `PatchRows`, on the device.
        floats: From `PatchRows`, on the device.
        plan: Gives the patch.

    Returns:
        Image `[B, C, *patch]` float32, class indices `[B, *patch]` int64, and the shade factors
        `[B, F]` for `segmed.training.shading.shade`.
    """
    axes, volume_axes, count = len(plan.patch_size), places.shape[1] // 2, len(places)
    part = _split(floats, volume_axes=volume_axes, axes=axes)
    # Half the memory, where it can name all voxels.
    kind = torch.int32 if voxels.label.numel() < 2**31 else torch.int64
    column = [value.view(count, *[1] * axes) for value in places.unbind(1)]
    start, shape, extent = column[0], column[1 : 1 + volume_axes], column[1 + volume_axes :]
    moved = [a for a in range(volume_axes) if volume_axes == axes or a != plan.slice_axis]
    lines: list[_Line] = []
    points = _points(part, plan, moved)
    stride = torch.ones_like(start)
    for axis in reversed(range(volume_axes)):
        if axis in moved:
            lines.insert(0, _line(points[moved.index(axis)], shape[axis], stride.to(kind)))
        else:  # the slice of a volume: a voxel of it along this axis
            start = start + part.centre[:, axis].view(start.shape).long() * stride
        stride = stride * extent[axis]
    start = start.to(kind)
    image = _mixed(voxels.image, lines, start)  # [C, B, *patch]
    inside = lines[0].below.weight + lines[0].above.weight
    for line in lines[1:]:
        inside = inside * (line.below.weight + line.above.weight)
    image.addcmul_(1 - inside, part.fill.view(start.shape))
    if plan.refines:  # no structure of the first stage beyond the border
        image[plan.in_channels :].clamp_(min=0.0)
    return image.transpose(0, 1), _nearest(voxels.label, lines, start), part.shades


def _points(part: _Split, plan: Plan, moved: Sequence[int]) -> list[Tensor]:
    """Voxel coordinates of every voxel of every patch along each moved axis, `[B, *patch]`."""
    patch, axes = plan.patch_size, len(plan.patch_size)
    view = [-1, *[1] * axes]
    steps = [
        torch.arange(n, device=part.matrix.device, dtype=torch.float32) - n // 2 for n in patch
    ]
    # Each along its own axis: `[n, 1, 1]` for the first.
    offsets = [own.view(-1, *[1] * (axes - 1 - axis)) for axis, own in enumerate(steps)]
    points = []
    for row, axis in enumerate(moved):
        at = part.centre[:, axis].view(view)
        for column in reversed(range(axes)):  # the last sum alone is as large as the patch
            at = part.matrix[:, row, column].view(view) * offsets[column] + at
        points.append(at)
    if plan.recipe.augmentation.elastic_mm > 0:
        mode = "trilinear" if axes == 3 else "bilinear"
        bend = F.interpolate(part.bend, size=patch, mode=mode, align_corners=True)
        points = [at + bend[:, row] for row, at in enumerate(points)]
    return points


def _line(points: Tensor, extent: Tensor, stride: Tensor) -> _Line:
    """The voxels below and above points, with their weights, along one axis of a volume.

    Args:
        points: Coordinates, `[B, *patch]`, in voxels.
        extent: Voxels of each case along the axis, `[B, 1, ...]`.
        stride: Voxels of the flat tensor from one to the next, likewise; of the type of `rows`.
    """
    last = (extent - 1).to(points.dtype)
    first = torch.zeros_like(last)
    below = points.floor()
    share = points - below

    def neighbour(index: Tensor, weight: Tensor) -> _Neighbour:
        held = torch.clamp(index, first, last)
        is_inside = held == index
        return _Neighbour(held.to(stride.dtype) * stride, weight * is_inside, is_inside)

    return _Line(neighbour(below, 1 - share), neighbour(below + 1, share), share >= 0.5)


def _mixed(source: Tensor, lines: Sequence[_Line], position: Tensor) -> Tensor:
    """Values between voxels, `[C, B, *patch]`; voxels beyond the border count as 0.

    Args:
        source: `[C, N]`.
        lines: Neighbours along each axis that is still to be mixed.
        position: Sum of the other axes' rows, `[B, *patch]` or of one voxel a patch.
    """
    if not lines:
        return source.index_select(1, position.flatten()).view(len(source), *position.shape)
    below, above, _ = lines[0]
    mixed = _mixed(source, lines[1:], position + below.rows) * below.weight
    return mixed.addcmul_(_mixed(source, lines[1:], position + above.rows), above.weight)


def _nearest(source: Tensor, lines: Sequence[_Line], position: Tensor) -> Tensor:
    """Labels of the nearest voxels, `[B, *patch]` int64; 0 beyond the border."""
    is_inside: Tensor | None = None
    for below, above, is_upper in lines:
        position = position + torch.where(is_upper, above.rows, below.rows)
        own = torch.where(is_upper, above.is_inside, below.is_inside)
        is_inside = own if is_inside is None else is_inside & own
    assert is_inside is not None  # a patch has at least two axes
    label = source.index_select(0, position.flatten()).view(position.shape)
    return (label * is_inside).long()
