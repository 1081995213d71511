"""Patch sampling as a function of the step, so that a step can be drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segmed.plan.schema import Plan

FOREGROUND_POINTS = 20_000
"""Voxels remembered for each class of a case, to centre patches on."""


@dataclass(frozen=True)
class TrainingCase:
    """One prepared case in memory.

    Attributes:
        id: Case id, for messages.
        image: Network input, `[C, *spatial]`, float32.
        label: Class indices, `[*spatial]`, uint8 or int64.
        points: For each foreground class that occurs, voxel indices `[n, axes]`.
        lowest: The image's smallest value, the padding beyond its border.
    """

    id: str
    image: Tensor
    label: Tensor
    points: tuple[npt.NDArray[np.int64], ...] = field(repr=False)
    lowest: float = 0.0

    @classmethod
    def of(cls, case_id: str, image: Tensor, label: Tensor) -> TrainingCase:
        """Store the positions of each class, in one pass for any number of classes."""
        values = label.numpy()
        flat = values.ravel()
        filled = np.flatnonzero(flat)
        by_class = filled[np.argsort(flat[filled], kind="stable")]
        ends = np.flatnonzero(np.diff(flat[by_class])) + 1
        points = []
        for found in np.split(by_class, ends) if by_class.size else ():
            kept = found[:: max(1, len(found) // FOREGROUND_POINTS)]
            points.append(np.stack(np.unravel_index(kept, values.shape), axis=1))
        return cls(case_id, image, label, tuple(points), float(image.min()))


@dataclass(frozen=True)
class PatchDraw:
    """Position of a patch: case and corner.

    Attributes:
        case: Index of the case.
        centre: Voxel on which the patch is centred; may leave the volume.
    """

    case: int
    centre: tuple[int, ...]


def step_generator(seed: int, step: int) -> np.random.Generator:
    """The random numbers of one step: a function of seed and step alone."""
    return np.random.default_rng(np.random.SeedSequence([seed, step]))


def draw_patches(
    cases: Sequence[TrainingCase],
    plan: Plan,
    generator: np.random.Generator,
    *,
    batch_size: int | None = None,
) -> list[PatchDraw]:
    """Draw one batch of patches.

    A share `foreground_fraction` of the batch (rounded at random) is centred on a voxel of a class
    drawn uniformly among those in the case; the rest is anywhere inside the volume.

    Args:
        cases: Prepared cases; each is equally likely.
        plan: Gives batch size, patch size and foreground share.
        generator: Source of randomness.
        batch_size: Patches to draw; the plan's if not given.

    Returns:
        One draw a patch.
    """
    draws = []
    for _ in range(batch_size or plan.recipe.batch_size):
        index = int(generator.integers(len(cases)))
        case = cases[index]
        wants_foreground = generator.random() < plan.recipe.foreground_fraction
        if wants_foreground and case.points:
            points = case.points[int(generator.integers(len(case.points)))]
            centre = points[int(generator.integers(len(points)))]
        else:
            centre = _anywhere(case.label.shape, plan, generator)
        draws.append(PatchDraw(index, tuple(int(x) for x in centre)))
    return draws


def _anywhere(
    shape: Sequence[int], plan: Plan, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """A centre such that the patch fits in the volume where it can; along slices, any slice."""
    patch = patch_in_volume(plan, len(shape))
    low = np.array([min(size, n) // 2 for size, n in zip(patch, shape, strict=True)])
    high = np.array(
        [n - (min(size, n) - min(size, n) // 2) for size, n in zip(patch, shape, strict=True)]
    )
    return np.asarray(generator.integers(low, high + 1))


def patch_in_volume(plan: Plan, axes: int) -> tuple[int, ...]:
    """The patch with one voxel along the slice axis where a 2D network walks through volumes."""
    if plan.slice_axis is None or axes == len(plan.patch_size):
        return plan.patch_size
    patch = list(plan.patch_size)
    patch.insert(plan.slice_axis, 1)
    return tuple(patch)


def cut(volume: Tensor, centre: Sequence[int], size: Sequence[int], *, fill: float) -> Tensor:
    """Cut a box out of a volume; beyond the border it is filled.

    Args:
        volume: `[C, *spatial]` or `[*spatial]`; leading axes beyond `size` are kept whole.
        centre: Voxel of the box's middle (size // 2).
        size: Voxels along each spatial axis.
        fill: Value beyond the border.

    Returns:
        The box, `[C, *size]` or `[*size]`. A view if the box is within the volume.
    """
    lead = volume.ndim - len(size)
    inside: list[slice] = [slice(None)] * lead
    target: list[slice] = [slice(None)] * lead
    for middle, length, extent in zip(centre, size, volume.shape[lead:], strict=True):
        start = middle - length // 2
        first, last = max(start, 0), min(start + length, extent)
        inside.append(slice(first, max(last, first)))
        target.append(slice(first - start, max(last, first) - start))
    found = volume[tuple(inside)]
    if all(actual == wanted for actual, wanted in zip(found.shape[lead:], size, strict=True)):
        return found
    box = torch.full((*volume.shape[:lead], *size), fill, dtype=volume.dtype, device=volume.device)
    box[tuple(target)] = found
    return box
