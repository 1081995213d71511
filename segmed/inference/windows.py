"""Window positions and the weights of their voxels.

The blend is separable: a window's weight is the product of one profile an axis, and so is the sum
of the weights of all windows, because they form a regular product of starts. Each profile is
therefore divided by its axis' sum beforehand; the blended map needs no second buffer and no final
division. MONAI's Gaussian is no such product: its weights are divided window by window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import ceil, prod
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segmed.errors import UsageError

Blend = Literal["gaussian", "constant", "monai", "nnunet"]
"""Profile of the weights of a window.

That of nnU-Net has its peak at voxel n // 2 of n, that of MONAI has a smallest weight.
"""

Placement = Literal["even", "fixed"]
"""Windows evenly spread, or at fixed steps from the first voxel, the last one moved back."""

SMALLEST_WEIGHT = 1e-3
"""MONAI's weights are no smaller than this share of the largest."""

KEPT_WEIGHTS = 4
"""Windows in a row mostly have neighbours at equal distances, and so the same weights."""

SIGMA_PER_WINDOW = 0.125
"""Standard deviation of the Gaussian profile as a share of the window's edge."""


def window_starts(
    size: int, window: int, overlap: float, placement: Placement = "even"
) -> list[int]:
    """First voxels of the windows along one axis.

    Args:
        size: Voxels of the volume along this axis, at least `window`.
        window: Voxels of a window.
        overlap: Smallest share of a window that overlaps the next one, 0 to below 1.
        placement: Evenly spread; or at fixed whole steps, which is how MONAI places them.

    Returns:
        Rising starts; the first is 0, the last `size - window`.

    Raises:
        UsageError: The window is larger than the volume, or the overlap is not a share.
    """
    if not 0.0 <= overlap < 1.0:
        raise UsageError(f"overlap must be at least 0 and below 1, got {overlap}")
    if not 1 <= window <= size:
        raise UsageError(f"a window of {window} voxels does not fit into {size}; pad first")
    if window == size:
        return [0]
    if placement == "fixed":
        whole = max(1, int(window * (1.0 - overlap)))
        return [*range(0, size - window, whole), size - window]
    step = max(1.0, window * (1.0 - overlap))
    gaps = ceil((size - window) / step)
    return [round(index * (size - window) / gaps) for index in range(gaps + 1)]


def profile(window: int, blend: Blend) -> npt.NDArray[np.float64]:
    """Weight of each voxel of a window along one axis, 1 at the centre, never 0."""
    if blend == "constant":
        return np.ones(window)
    centre = window // 2 if blend == "nnunet" else (window - 1) / 2
    offset = np.arange(window) - centre
    return np.asarray(np.exp(-0.5 * (offset / (SIGMA_PER_WINDOW * window)) ** 2))


@dataclass(frozen=True)
class WindowGrid:
    """All windows over one volume.

    Attributes:
        shape: Voxels of the volume along each axis.
        window: Voxels of a window along each axis.
        overlap: Smallest share of a window that overlaps the next one.
        blend: Profile of the weights.
        buffer_dim: Axis along which windows advance last to first: all windows of one start along
            it form a row.
        placement: See `window_starts`.
    """

    shape: tuple[int, ...]
    window: tuple[int, ...]
    overlap: float = 0.5
    blend: Blend = "gaussian"
    buffer_dim: int = 0
    placement: Placement = "even"

    @cached_property
    def starts(self) -> tuple[list[int], ...]:
        """Starts along each axis."""
        sizes = zip(self.shape, self.window, strict=True)
        return tuple(window_starts(*size, self.overlap, self.placement) for size in sizes)

    @property
    def count(self) -> int:
        """Number of windows."""
        return prod(len(starts) for starts in self.starts)

    def corners(self) -> Iterator[tuple[int, ...]]:
        """First voxel of each window, row by row along the buffer dimension."""
        others = [starts for axis, starts in enumerate(self.starts) if axis != self.buffer_dim]
        for row in self.starts[self.buffer_dim]:
            for corner in product(*others):
                yield (*corner[: self.buffer_dim], row, *corner[self.buffer_dim :])

    @cached_property
    def _profiles(self) -> tuple[dict[int, Tensor], ...]:
        """For each axis the normalised float32 profile of the window at each start."""
        axes = zip(self.shape, self.window, self.starts, strict=True)
        return tuple(_normalised(*axis, self.blend) for axis in axes)

    def weight(self, corner: tuple[int, ...], device: torch.device | None = None) -> Tensor:
        """Share of the blended map that a window contributes.

        Args:
            corner: First voxel of the window.
            device: Where the weights are computed; None for the CPU. Only the profiles travel.

        Returns:
            `[*window]` float32.
        """
        placed = device or torch.device("cpu")
        if self.blend == "monai":
            return self._bounded_weight(corner, placed)
        profiles = self._profiles_on(placed)
        return _product([axis[start] for axis, start in zip(profiles, corner, strict=True)])

    def _bounded_weight(self, corner: tuple[int, ...], device: torch.device) -> Tensor:
        """Share of a window whose weights are no product over the axes."""
        offsets = tuple(
            tuple(start - first for start in starts if abs(start - first) < edge)
            for first, edge, starts in zip(corner, self.window, self.starts, strict=True)
        )
        key = (device, offsets)
        if key not in self._bounded:
            own = _bounded(self.window).to(device)
            total = torch.zeros_like(own)
            for offset in product(*offsets):
                here, there = (
                    _overlap(offset, self.window),
                    _overlap(_negative(offset), self.window),
                )
                total[here] += own[there]
            while len(self._bounded) >= KEPT_WEIGHTS:
                self._bounded.pop(next(iter(self._bounded)))
            self._bounded[key] = own / total
        return self._bounded[key]

    @cached_property
    def _bounded(self) -> dict[tuple[torch.device, tuple[tuple[int, ...], ...]], Tensor]:
        return {}

    @cached_property
    def _placed(self) -> dict[torch.device, tuple[dict[int, Tensor], ...]]:
        return {}

    def _profiles_on(self, device: torch.device) -> tuple[dict[int, Tensor], ...]:
        """The profiles in a device's memory, copied there once."""
        if device not in self._placed:
            self._placed[device] = tuple(
                {start: weights.to(device) for start, weights in axis.items()}
                for axis in self._profiles
            )
        return self._placed[device]


def _product(profiles: Sequence[Tensor]) -> Tensor:
    """The outer product of one profile an axis."""
    weight = profiles[-1]
    for lead in reversed(profiles[:-1]):
        weight = lead.reshape(-1, *[1] * weight.ndim) * weight
    return weight


def _bounded(window: Sequence[int]) -> Tensor:
    """MONAI's weights of a window before they are divided, float32."""
    profiles = [torch.from_numpy(profile(edge, "monai").astype(np.float32)) for edge in window]
    weight = _product(profiles)
    return weight.clamp_(min=max(float(weight.min()), SMALLEST_WEIGHT))


def _negative(offset: Sequence[int]) -> tuple[int, ...]:
    return tuple(-step for step in offset)


def _overlap(offset: Sequence[int], window: Sequence[int]) -> tuple[slice, ...]:
    """The part of a window that one of the same size, moved by an offset, covers."""
    axes = zip(offset, window, strict=True)
    return tuple(slice(max(0, step), min(edge, edge + step)) for step, edge in axes)


def _normalised(size: int, window: int, starts: Sequence[int], blend: Blend) -> dict[int, Tensor]:
    weights = profile(window, blend)
    total = np.zeros(size)
    for start in starts:
        total[start : start + window] += weights
    return {
        start: torch.from_numpy((weights / total[start : start + window]).astype(np.float32))
        for start in starts
    }
