"""Memory of segmenting an image by the networks of one plan or of several, beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from typing import Protocol

import torch

from segmed.geometry import Grid
from segmed.inference.device_memory import DeviceMemory
from segmed.inference.device_path import DevicePath
from segmed.inference.mean_of_plans import shared_dim
from segmed.inference.memory import (
    MemoryEstimate,
    Surroundings,
    estimate_memory,
    require_free_memory,
    together,
)
from segmed.inference.sliding import WindowRecipe
from segmed.plan import Plan
from segmed.transforms.chain import target_transform
from segmed.transforms.grid_transform import GridTransform


class Walk(Protocol):
    """The networks of one plan, as a `Predictor` has them.

    Attributes:
        plan: Their plan.
        path: Their way through a GPU; None on a CPU.
    """

    plan: Plan
    path: DevicePath | None

    @property
    def probe(self) -> tuple[int, int]:
        """Bytes kept after a first batch of windows, and those of each batch at its peak."""
        ...

    def recipe(self, shape: tuple[int, ...], buffer_dim: int | None = None) -> WindowRecipe:
        """Window recipe of a prepared image."""
        ...


def memory_of(walks: Sequence[Walk], grid: Grid, around: Surroundings) -> MemoryEstimate:
    """The peak memory of segmenting an image on this grid.

    Args:
        walks: The networks of each plan.
        grid: Grid of the image as stored.
        around: Conditions; the networks are measured here.
    """
    found, base = [], around.base
    for walk, way, recipe in _ways(walks, grid):
        retained, window = walk.probe
        own = replace(around, base=base + retained, window=window)
        found.append(estimate_memory(walk.plan, way, recipe, own))
        base = 0
    return together(found)


def require_free(
    walks: Sequence[Walk], grid: Grid, device: torch.device, *, keeps_probs: bool
) -> None:
    """Validate that what grows with an image fits into the memory that is free.

    Args:
        walks: The networks of each plan.
        grid: Grid of the image as stored.
        device: Where the networks run, and the sums of their windows are.
        keeps_probs: Whether all probabilities are kept.

    Raises:
        ImageError: `out_of_memory`.
    """
    around, ways = Surroundings(0, 0, keeps_probs=keeps_probs), list(_ways(walks, grid))
    needs = [estimate_memory(walk.plan, way, recipe, around) for walk, way, recipe in ways]
    require_free_memory(
        together(needs), walks[0].plan, ways[0][1].shape, on_cpu=device.type == "cpu"
    )


def device_memory_of(walks: Sequence[Walk], grid: Grid) -> DeviceMemory | None:
    """The GPU memory of segmenting an image on this grid; None without a GPU.

    Args:
        walks: The networks of each plan.
        grid: Grid of the image as stored.
    """
    found = [
        path.forecast(recipe, way.shape, grid.shape)
        for walk, way, recipe in _ways(walks, grid)
        if (path := walk.path) is not None
    ]
    return reduce(DeviceMemory.beside, found) if found else None


def fell_back(walks: Sequence[Walk]) -> bool:
    """Return whether an engine on a GPU now runs in a wider type, so that the image is repeated."""
    changed = [walk.path.fell_back() for walk in walks if walk.path is not None]
    return any(changed)


def take_less(walks: Sequence[Walk]) -> bool:
    """Take less memory of the GPU from now on; whether that is possible."""
    changed = [walk.path.take_less() for walk in walks if walk.path is not None]
    return any(changed)


def _ways(walks: Sequence[Walk], grid: Grid) -> Iterator[tuple[Walk, GridTransform, WindowRecipe]]:
    """Transform and windows of an image for the networks of each plan."""
    ways = [target_transform(grid, walk.plan) for walk in walks]
    dim = None
    if len(walks) > 1:
        dim = shared_dim([walk.plan for walk in walks], ways[0].shape)
    for walk, way in zip(walks, ways, strict=True):
        yield walk, way, walk.recipe(way.shape, dim)
