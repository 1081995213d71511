"""Window positions and the weights of their voxels.

The blend is separable: a window's weight is the product of one profile an axis, and so is the sum
of the weights of all windows, because they form a regular product of starts. Each profile is
therefore divided by its axis' sum beforehand; the blended map needs no second buffer and no final
division.
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

Blend = Literal["gaussian", "constant", "nnunet"]
"""Profile of the weights of a window; that of nnU-Net has its peak at voxel n // 2 of n."""

SIGMA_PER_WINDOW = 0.125
"""Standard deviation of the Gaussian profile as a share of the window's edge."""


def window_starts(size: int, window: int, overlap: float) -> list[int]:
    """Evenly spaced first voxels of the windows along one axis.

    Args:
        size: Voxels of the volume along this axis, at least `window`.
        window: Voxels of a window.
        overlap: Smallest share of a window that overlaps the next one, 0 to below 1.

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
    """

    shape: tuple[int, ...]
    window: tuple[int, ...]
    overlap: float = 0.5
    blend: Blend = "gaussian"
    buffer_dim: int = 0

    @cached_property
    def starts(self) -> tuple[list[int], ...]:
        """Starts along each axis."""
        sizes = zip(self.shape, self.window, strict=True)
        return tuple(window_starts(size, window, self.overlap) for size, window in sizes)

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
        placed = self._profiles_on(device or torch.device("cpu"))
        profiles = [axis[start] for axis, start in zip(placed, corner, strict=True)]
        weight = profiles[-1]
        for lead in reversed(profiles[:-1]):
            weight = lead.reshape(-1, *[1] * weight.ndim) * weight
        return weight

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


def _normalised(size: int, window: int, starts: Sequence[int], blend: Blend) -> dict[int, Tensor]:
    weights = profile(window, blend)
    total = np.zeros(size)
    for start in starts:
        total[start : start + window] += weights
    return {
        start: torch.from_numpy((weights / total[start : start + window]).astype(np.float32))
        for start in starts
    }
