"""Inverse transform: finished slabs of probabilities, box by box, onto the grid of the input.

It runs as soon as the target rows that a piece of the input needs have arrived, and keeps no more
rows than that. The result equals that of one interpolation of the whole, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segmed.geometry import nearest_index
from segmed.transforms.grid_transform import GridTransform
from segmed.transforms.resampling import coordinates

PIECE_BYTES = 32 * 2**20
"""Aim for the size of one piece of probabilities; a piece has at least one input row."""

CUDA_PIECE_BYTES = 512 * 2**20
"""The same on a GPU, where every piece costs a few dozen launches."""


@dataclass(frozen=True)
class Slab:
    """A finished piece of the blended map.

    Attributes:
        start: First row along the buffer dimension, in the volume given.
        values: `[K, ...]`, all rows of the other axes. Valid until the next slab is requested.
    """

    start: int
    values: Tensor


@dataclass(frozen=True)
class ProbsBox:
    """Probabilities of a box of the input.

    Attributes:
        region: The box, one slice an input axis.
        probs: `[K, *box]` float32, class 0 the background.
    """

    region: tuple[slice, ...]
    probs: Tensor


def inverse_boxes(
    slabs: Iterable[Slab], transform: GridTransform, buffer_dim: int
) -> Iterator[ProbsBox]:
    """Bring slabs of the target grid to the input grid as they come.

    Args:
        slabs: Slabs in rising order along the target's axis `buffer_dim`.
        transform: From the input grid to the target grid.
        buffer_dim: The target axis that slabs run along.

    Yields:
        Boxes that tile the transform's box; voxels outside of the box are background.
    """
    rows = _RowBuffer(transform, buffer_dim)
    done = 0
    for slab in _thin(slabs, transform, buffer_dim):
        rows.take(slab)
        reach = rows.computable()
        yield from _pieces(rows, transform, buffer_dim, done, reach)
        done = max(done, reach)
        rows.drop_before(done)


def _thin(slabs: Iterable[Slab], transform: GridTransform, buffer_dim: int) -> Iterator[Slab]:
    """The same slabs in a few rows each, so that joining them to rows held copies little."""
    for slab in slabs:
        step = piece_rows(slab.values, transform, buffer_dim)
        for low in range(0, slab.values.shape[1 + buffer_dim], step):
            size = min(step, slab.values.shape[1 + buffer_dim] - low)
            yield Slab(slab.start + low, slab.values.narrow(1 + buffer_dim, low, size))


def piece_rows(values: Tensor, transform: GridTransform, buffer_dim: int) -> int:
    """Input rows in one piece, so that its probabilities stay near the device's piece size.

    Args:
        values: `[K, ...]`, a slab; gives the number of classes and the device.
        transform: From the input grid to the target grid.
        buffer_dim: The target axis that slabs run along.
    """
    num_classes = values.shape[0]
    piece_bytes = CUDA_PIECE_BYTES if values.is_cuda else PIECE_BYTES
    others = [
        max(size, box)
        for axis, (size, box) in enumerate(
            zip(transform.shape, transform.cropped_shape, strict=True)
        )
        if axis != buffer_dim
    ]
    return max(1, piece_bytes // (4 * num_classes * prod(others)))


class _RowBuffer:
    """The target rows held for pieces to come, and which input rows they suffice for."""

    def __init__(self, transform: GridTransform, buffer_dim: int) -> None:
        self.axis = buffer_dim
        self.num_target = transform.shape[buffer_dim]
        self.num_box = transform.cropped_shape[buffer_dim]
        self.first = 0
        self.held: Tensor | None = None
        self.below, self.above, self.weight = axis_neighbours(transform, buffer_dim)

    def take(self, slab: Slab) -> None:
        if self.held is None or self.held.shape[1 + self.axis] == 0:
            self.first, self.held = slab.start, slab.values
        else:
            self.held = torch.cat([self.held, slab.values], dim=1 + self.axis)

    def computable(self) -> int:
        """Number of leading box rows whose target rows have all arrived."""
        assert self.held is not None
        end = self.first + self.held.shape[1 + self.axis]
        return int(np.searchsorted(self.above, end, side="left"))

    def drop_before(self, done: int) -> None:
        """Forget the target rows that box rows from `done` on do not need; own what is kept."""
        assert self.held is not None
        end = self.first + self.held.shape[1 + self.axis]
        need = int(self.below[done]) if done < self.num_box else end
        keep = max(min(need, end), self.first)
        self.held = self.held.narrow(1 + self.axis, keep - self.first, end - keep).clone()
        self.first = keep


def _pieces(
    rows: _RowBuffer, transform: GridTransform, buffer_dim: int, done: int, reach: int
) -> Iterator[ProbsBox]:
    assert rows.held is not None
    step = piece_rows(rows.held, transform, buffer_dim)
    for low in range(done, reach, step):
        span = (low, min(low + step, reach))
        yield _piece(rows, transform, buffer_dim, span)


def _piece(
    rows: _RowBuffer, transform: GridTransform, buffer_dim: int, span: tuple[int, int]
) -> ProbsBox:
    """Interpolate the box rows `span[0]..span[1]-1`, axes in the order of the whole."""
    assert rows.held is not None
    low = int(rows.below[span[0]])
    high = int(rows.above[span[1] - 1]) + 1
    part = rows.held.narrow(1 + buffer_dim, low - rows.first, high - low)
    turned_of = [transform.axes.index(axis) for axis in range(len(transform.axes))]
    image = part.permute(0, *(turned + 1 for turned in turned_of))
    growth = [transform.cropped_shape[t] / transform.shape[t] for t in turned_of]
    for axis in sorted(range(len(growth)), key=lambda axis: (growth[axis], axis)):
        turned = turned_of[axis]
        if turned == buffer_dim:
            at = np.arange(*span)
            below, above, weight = rows.below[at] - low, rows.above[at] - low, rows.weight[at]
        else:
            below, above, weight = axis_neighbours(transform, turned)
        if transform.flips[turned]:
            below, above, weight = below[::-1], above[::-1], weight[::-1]
        image = _between(image, axis + 1, below, above, weight)
    region = tuple(_input_span(transform, turned, buffer_dim, span) for turned in turned_of)
    return ProbsBox(region, image)


Index = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]


def axis_neighbours(transform: GridTransform, turned: int) -> tuple[Index, Index, Weights]:
    """Neighbours along one turned axis; below and above are one where the nearest row is taken."""
    num_target, num_box = transform.shape[turned], transform.cropped_shape[turned]
    if turned == transform.nearest_axis:
        nearest = nearest_index(num_target, num_box)
        return nearest, nearest, np.zeros(num_box)
    return neighbours(num_target, num_box)


def neighbours(num_target: int, num_box: int) -> tuple[Index, Index, Weights]:
    """For each box row the target rows below and above it, and the weight of the upper one."""
    if num_target == num_box:
        same = np.arange(num_box)
        return same, same, np.zeros(num_box)
    at = coordinates(num_target, num_box).clip(0, num_target - 1)
    below = np.floor(at).astype(np.int64).clip(0, max(num_target - 2, 0))
    return below, np.minimum(below + 1, num_target - 1), at - below


def _between(image: Tensor, dim: int, below: Index, above: Index, weight: Weights) -> Tensor:
    if below is above or bool((below == above).all() and not weight.any()):
        whole = len(below) == image.shape[dim] and bool((np.diff(below) == 1).all())
        return image if whole else image.index_select(dim, _index(below, image))
    view = [1] * image.ndim
    view[dim] = len(below)
    share = torch.from_numpy(weight.copy()).to(image).view(view)
    low = image.index_select(dim, _index(below, image)).mul_(1 - share)
    return low.add_(image.index_select(dim, _index(above, image)).mul_(share))


def _input_span(
    transform: GridTransform, turned: int, buffer_dim: int, span: tuple[int, int]
) -> slice:
    """Return the span of a piece along the input axis of a turned axis."""
    first, last = transform.box[turned]
    if turned == buffer_dim:
        first, last = first + span[0], first + span[1]
    if transform.flips[turned]:
        size = transform.grid_in.shape[transform.axes[turned]]
        first, last = size - last, size - first
    return slice(first, last)


def _index(values: Index, image: Tensor) -> Tensor:
    # A mirrored view has steps that torch refuses, hence the copy.
    return torch.from_numpy(values.copy()).to(image.device)
