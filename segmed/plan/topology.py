"""Levels of a network from the size and spacing of its patch: kernels and strides per axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

SMALLEST_FEATURE = 4
"""An axis is pooled only while its feature map keeps at least this many voxels."""

ANISOTROPY_LIMIT = 2.0
"""An axis this many times coarser than the finest is neither pooled nor convolved along."""

MAX_LEVELS = 6
"""Levels of resolution at most, the input's own included."""


@dataclass(frozen=True)
class Topology:
    """Kernels and strides of each level, finest first.

    Attributes:
        kernels: Kernel size of each level's convolutions, per axis.
        strides: Step from the level above, per axis; ones for the first level.
    """

    kernels: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]

    @property
    def total_stride(self) -> tuple[int, ...]:
        """Product of the strides along each axis."""
        total = [1] * len(self.strides[0])
        for stride in self.strides:
            total = [have * step for have, step in zip(total, stride, strict=True)]
        return tuple(total)


def plan_topology(
    patch_size: Sequence[int], spacing_mm: Sequence[float], *, max_levels: int = MAX_LEVELS
) -> Topology:
    """Levels for a patch: pool the fine axes first, until the axes are alike, then all.

    Args:
        patch_size: Voxels along each axis.
        spacing_mm: Voxel edge along each axis, in mm.
        max_levels: Levels at most.

    Returns:
        The kernels and strides. A patch too small to pool has one level.

    Source:
        Isensee et al. 2021, Nature Methods 18, supplementary note 2 (network topology).
    """
    size = [float(n) for n in patch_size]
    spacing = list(spacing_mm)
    kernels = [_kernel(spacing)]
    strides = [(1,) * len(size)]
    while len(strides) < max_levels:
        stride = tuple(
            2 if edge < ANISOTROPY_LIMIT * min(spacing) and n >= 2 * SMALLEST_FEATURE else 1
            for n, edge in zip(size, spacing, strict=True)
        )
        if all(step == 1 for step in stride):
            break
        size = [n / step for n, step in zip(size, stride, strict=True)]
        spacing = [edge * step for edge, step in zip(spacing, stride, strict=True)]
        strides.append(stride)
        kernels.append(_kernel(spacing))
    return Topology(tuple(kernels), tuple(strides))


def _kernel(spacing_mm: Sequence[float]) -> tuple[int, ...]:
    """A kernel of 3, but 1 along axes that are still much coarser than the finest."""
    finest = min(spacing_mm)
    return tuple(1 if edge >= ANISOTROPY_LIMIT * finest else 3 for edge in spacing_mm)


def plan_patch(
    shape: Sequence[float], spacing_mm: Sequence[float], *, max_voxels: float
) -> tuple[int, ...]:
    """The largest useful patch within a number of voxels.

    The typical image if it fits, each axis rounded up to what the network's strides divide;
    otherwise the same shape made smaller, each axis rounded to the nearest such size.

    Args:
        shape: Typical image size along each axis, in voxels at the target spacing.
        spacing_mm: Voxel edge along each axis, in mm.
        max_voxels: Voxels at most, before rounding.

    Returns:
        Voxels along each axis.
    """
    whole = [max(1, round(n)) for n in shape]
    volume = prod(whole)
    if volume <= max_voxels:
        steps = plan_topology(whole, spacing_mm).total_stride
        return tuple(-(-n // step) * step for n, step in zip(whole, steps, strict=True))
    share = (max_voxels / volume) ** (1 / len(whole))
    smaller = [max(1, round(n * share)) for n in whole]
    steps = plan_topology(smaller, spacing_mm).total_stride
    return tuple(max(1, round(n / step)) * step for n, step in zip(smaller, steps, strict=True))
