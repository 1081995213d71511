"""The window loop: batches of windows through a network, blended into a map in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.errors import ModelError, UsageError
from segmed.inference.windows import Blend, Placement, WindowGrid
from segmed.transforms.inverse import Slab

NetworkFn = Callable[[Tensor], Tensor]
"""From windows `[B, C, *window]` to their maps `[B, K, *window]`, such as probabilities."""

EMPTY_RANGE = 1e-3
"""A window whose scaled intensities vary by no more than this, in every channel, shows no body."""

SLAB_VOXELS = 2**17
"""Voxels of a window blended at once: their weights stay in a core's cache for all classes."""


@dataclass(frozen=True)
class WindowRecipe:
    """Window recipe of a volume.

    Attributes:
        window: Voxels of a window along each axis.
        overlap: Smallest share of a window that overlaps the next one.
        blend: Profile of the weights.
        batch: Windows that go through the network at once.
        buffer_dim: Axis along which finished slabs come out.
        skip_empty: Give windows without a body to class 0 and spare the network.
        has_background: Class 0 is the background; without it all maps of such windows are 0.
        placement: Windows evenly spread or at fixed steps; see `window_starts`.
    """

    window: tuple[int, ...]
    overlap: float = 0.5
    blend: Blend = "gaussian"
    batch: int = 1
    buffer_dim: int = 0
    skip_empty: bool = False
    has_background: bool = True
    placement: Placement = "even"


def sliding_window(
    network: NetworkFn,
    tensor: Tensor,
    *,
    window: Sequence[int],
    overlap: float = 0.5,
    blend: Blend = "gaussian",
    batch: int = 1,
    num_classes: int | None = None,
) -> Tensor:
    """The blended map of a whole volume.

    Args:
        network: From windows to maps. A linear blend of its values is taken: give probabilities
            where probabilities are wanted.
        tensor: Volume `[C, *spatial]`. Where it is smaller than the window it is padded by zeros on
            both sides, and the map is cut back.
        window: Voxels of a window along each axis.
        overlap: Smallest share of a window that overlaps the next one.
        blend: `gaussian` (sigma an eighth of the window) or `constant`.
        batch: Windows that go through the network at once.
        num_classes: Maps K that the network gives; found from the first window where not given.

    Returns:
        Float32 map `[K, *spatial]`, where the network gives its maps.

    Raises:
        UsageError: The window has another number of axes than the volume.
        ModelError: The network gives another shape than `[B, K, *window]`.
    """
    recipe = WindowRecipe(tuple(window), overlap, blend, batch)
    padded, inside = pad_to_window(tensor, recipe.window)
    grid = window_grid(padded, recipe)
    total: Tensor | None = None
    for corner, values in window_maps(network, padded, grid, recipe):
        if total is None:
            total = zeros((num_classes or values.shape[0], *grid.shape), values.device)
        _add(total, values, grid.weight(corner, total.device), corner)
    assert total is not None  # a grid has at least one window
    return total[(slice(None), *inside)]


def sliding_slabs(network: NetworkFn, tensor: Tensor, recipe: WindowRecipe) -> Iterator[Slab]:
    """The blended map slab by slab, in a buffer of one window's depth.

    Args:
        network: From windows to maps.
        tensor: Volume `[C, *spatial]`, padded where it is smaller than the window.
        recipe: How to walk.

    Yields:
        Slabs in rising order; together they are what `sliding_window` gives.
    """
    padded, inside = pad_to_window(tensor, recipe.window)
    grid = window_grid(padded, recipe)
    buffer: _Buffer | None = None
    for corner, values in window_maps(network, padded, grid, recipe):
        if buffer is None:
            buffer = _Buffer(values, grid, inside)
        yield from buffer.finished(before=corner[recipe.buffer_dim])
        buffer.add(values, corner)
    assert buffer is not None  # a grid has at least one window
    yield from buffer.finished(before=grid.shape[recipe.buffer_dim])


def pad_to_window(tensor: Tensor, window: Sequence[int]) -> tuple[Tensor, tuple[slice, ...]]:
    """A volume at least as large as a window, and the position of the given one in it."""
    shape = tuple(tensor.shape[1:])
    if len(shape) != len(window):
        raise UsageError(
            f"the window {tuple(window)} has {len(window)} axes, the volume {len(shape)}"
        )
    missing = [max(0, edge - size) for size, edge in zip(shape, window, strict=True)]
    before = [gap // 2 for gap in missing]
    inside = tuple(slice(lead, lead + size) for lead, size in zip(before, shape, strict=True))
    if not any(missing):
        return tensor, inside
    amounts = [
        side
        for gap, lead in zip(reversed(missing), reversed(before), strict=True)
        for side in (lead, gap - lead)
    ]
    return F.pad(tensor, amounts), inside


def window_grid(padded: Tensor, recipe: WindowRecipe) -> WindowGrid:
    """The windows of a recipe over a volume that is large enough."""
    shape = tuple(padded.shape[1:])
    return WindowGrid(
        shape, recipe.window, recipe.overlap, recipe.blend, recipe.buffer_dim, recipe.placement
    )


def window_maps(
    network: NetworkFn, padded: Tensor, grid: WindowGrid, recipe: WindowRecipe
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Each window's corner and map `[K, *window]`, in the grid's order, computed in batches."""
    corners = grid.corners()
    num_classes = 0
    while chunk := list(islice(corners, recipe.batch)):
        views = [padded[(slice(None), *_box(corner, grid.window))] for corner in chunk]
        live = [not (recipe.skip_empty and num_classes and _is_empty(view)) for view in views]
        maps = iter(_run(network, [v for v, is_live in zip(views, live, strict=True) if is_live]))
        for corner, is_live in zip(chunk, live, strict=True):
            values = next(maps) if is_live else _empty(num_classes, grid.window, recipe)
            num_classes = values.shape[0]
            yield corner, values


class _Buffer:
    """Sums of the windows in reach of the current row, one window deep along `buffer_dim`."""

    def __init__(self, first: Tensor, grid: WindowGrid, inside: tuple[slice, ...]) -> None:
        self.grid = grid
        self.axis = grid.buffer_dim
        self.depth = grid.window[self.axis]
        self.first = 0
        self.inside = inside
        shape = [*grid.shape]
        shape[self.axis] = self.depth
        self.sums = zeros((first.shape[0], *shape), first.device)

    def add(self, values: Tensor, corner: tuple[int, ...]) -> None:
        """Blend one window in; it is within the current row."""
        place = list(corner)
        place[self.axis] -= self.first
        _add(self.sums, values, self.grid.weight(corner, self.sums.device), tuple(place))

    def finished(self, *, before: int) -> Iterator[Slab]:
        """Give the rows that no window from `before` on reaches, and move on to `before`."""
        count = min(before - self.first, self.depth)
        if count <= 0:
            return
        span = self.inside[self.axis]
        low, high = max(span.start, self.first), min(span.stop, self.first + count)
        if low < high:
            place = [slice(None), *self.inside]
            place[1 + self.axis] = slice(low - self.first, high - self.first)
            yield Slab(low - span.start, self.sums[tuple(place)])
        self._move_on(count)

    def _move_on(self, count: int) -> None:
        axis, depth = 1 + self.axis, self.depth
        for start in range(count, depth, count):  # in steps that do not overlap themselves
            size = min(count, depth - start)
            self.sums.narrow(axis, start - count, size).copy_(self.sums.narrow(axis, start, size))
        self.sums.narrow(axis, depth - count, count).zero_()
        self.first += count


def zeros(shape: Sequence[int], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Zeros; on the CPU in NumPy's memory, whose huge pages take a quarter of the time."""
    if device.type != "cpu":
        return torch.zeros(tuple(shape), device=device, dtype=dtype)
    like = torch.empty(0, dtype=dtype).numpy()
    return torch.from_numpy(np.zeros(tuple(shape), dtype=like.dtype))


def shallowest_dim(shape: Sequence[int], window: Sequence[int]) -> int:
    """The axis along which a buffer of one window's depth has the fewest voxels."""
    sizes = [
        window[axis] * prod(size for other, size in enumerate(shape) if other != axis)
        for axis in range(len(shape))
    ]
    return sizes.index(min(sizes))


def _add(total: Tensor, values: Tensor, weight: Tensor, corner: tuple[int, ...]) -> None:
    place = total[(slice(None), *_box(corner, tuple(weight.shape)))]
    values = values.to(total.device)
    depth = len(weight)
    step = depth if total.is_cuda else max(1, depth * SLAB_VOXELS // weight.numel())
    for low in range(0, depth, step):
        rows = slice(low, low + step)
        place[:, rows].addcmul_(values[:, rows], weight[rows])


def _box(corner: tuple[int, ...], window: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(low, low + edge) for low, edge in zip(corner, window, strict=True))


def _run(network: NetworkFn, views: list[Tensor]) -> Tensor:
    if not views:
        return torch.empty(0)
    batch = views[0].unsqueeze(0) if len(views) == 1 else torch.stack(views)
    maps = network(batch)
    if maps.shape[0] != len(views) or maps.shape[2:] != batch.shape[2:]:
        raise ModelError(
            f"the network gave {tuple(maps.shape)} for windows {tuple(batch.shape)}; maps must be "
            "on the windows' grid"
        )
    return maps.float()


def _is_empty(view: Tensor) -> bool:
    flat = view.flatten(1)
    return bool((flat.amax(1) - flat.amin(1) <= EMPTY_RANGE).all())


def _empty(num_classes: int, window: tuple[int, ...], recipe: WindowRecipe) -> Tensor:
    values = torch.zeros((num_classes, *window))
    if recipe.has_background:
        values[0] = 1.0
    return values
