"""Patch sampling as a function of the step, so that a step can be drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segmed.plan.schema import Plan
from segmed.preprocessing.foreground import foreground_points


class Voxels(Protocol):
    """Image and label of a case, in memory or on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        ...

    @property
    def num_bytes(self) -> int:
        """Bytes of both in memory."""
        ...

    def image(self) -> Tensor:
        """Network input, `[C, *spatial]`, float32."""
        ...

    def label(self) -> Tensor:
        """Class indices, `[*spatial]`, of an integer type."""
        ...

    def patch(self, centre: Sequence[int], size: Sequence[int], fill: float) -> LabelledPatch:
        """A box of both; see `cut`."""
        ...


OFF_MIDDLE = 0.2
"""A patch of all labels is at most this share of its size off their middle, along each axis: about
as far as the nearest of windows that overlap by half."""

LabelledPatch = tuple[Tensor, Tensor]
"""Image `[C, *size]` and label `[*size]` of one patch."""


@dataclass(frozen=True)
class VoxelsInMemory:
    """Image and label as tensors.

    Attributes:
        pixels: Network input, `[C, *spatial]`, float32.
        indices: Class indices, `[*spatial]`.
    """

    pixels: Tensor
    indices: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return tuple(self.indices.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes of both."""
        return self.pixels.nbytes + self.indices.nbytes

    def image(self) -> Tensor:
        """The image."""
        return self.pixels

    def label(self) -> Tensor:
        """The label."""
        return self.indices

    def patch(self, centre: Sequence[int], size: Sequence[int], fill: float) -> LabelledPatch:
        """A box of both, views where it lies within the volume."""
        return (
            cut(self.pixels, centre, size, fill=fill),
            cut(self.indices, centre, size, fill=0),
        )


@dataclass(frozen=True)
class TrainingCase:
    """One prepared case.

    Attributes:
        id: Case id, for messages.
        voxels: Image and label.
        points: For each class of `classes`, voxel indices `[n, axes]`; for that of voxels that were
            not annotated, those of all that were.
        classes: Class indices that occur, without 0, in growing order.
        lowest: The image's smallest value, the padding beyond its border.
    """

    id: str
    voxels: Voxels = field(repr=False)
    points: Sequence[npt.NDArray[np.int64]] = field(default=(), repr=False)
    classes: tuple[int, ...] = ()
    lowest: float = 0.0

    @classmethod
    def of(
        cls, case_id: str, image: Tensor, label: Tensor, *, ignore_index: int | None = None
    ) -> TrainingCase:
        """Take a case from tensors, with the voxels of each class found in one pass."""
        values = label.numpy()
        classes, found = foreground_points(values, ignore_index)
        points = tuple(np.stack(np.unravel_index(one, values.shape), axis=1) for one in found)
        return cls(case_id, VoxelsInMemory(image, label), points, classes, float(image.min()))

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return self.voxels.shape

    @cached_property
    def boxes(self) -> npt.NDArray[np.int64]:
        """First and last voxel of each class of `classes` along each axis, `[classes, 2, axes]`."""
        return np.array([(found.min(axis=0), found.max(axis=0)) for found in self.points])

    @property
    def image(self) -> Tensor:
        """Network input, `[C, *spatial]`, float32; read whole each time if it is on disk."""
        return self.voxels.image()

    @property
    def label(self) -> Tensor:
        """Class indices, `[*spatial]`; read whole each time if they are on disk."""
        return self.voxels.label()

    def patch(self, centre: Sequence[int], size: Sequence[int]) -> LabelledPatch:
        """A box of image and label around a voxel; beyond the border `lowest` and background."""
        return self.voxels.patch(centre, size, self.lowest)

    def on(self, device: torch.device) -> TrainingCase:
        """The case with its voxels in the memory of a device."""
        return replace(self, voxels=VoxelsInMemory(self.image.to(device), self.label.to(device)))


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

    A share `centred_fraction` of the patches lies near the middle of all labels of their case. Of
    the others a share `foreground_fraction` is centred on a voxel of a class drawn uniformly among
    those in the case; the rest is anywhere inside the volume, or where some
    voxels are not annotated around any one that is.

    Args:
        cases: Prepared cases; each is equally likely, but for those with the plan's rare labels.
        plan: Gives batch size, patch size and foreground share.
        generator: Source of randomness.
        batch_size: Patches to draw; the plan's if not given.

    Returns:
        One draw a patch.
    """
    draws = []
    shares, ignored = case_shares(cases, plan), plan.encoding.ignore_index
    for _ in range(batch_size or plan.recipe.batch_size):
        if shares is None:
            index = int(generator.integers(len(cases)))
        else:
            index = int(generator.choice(len(cases), p=shares))
        case = cases[index]
        is_covered = ignored in case.classes  # by voxels that were not annotated; the last class
        num_labels = len(case.classes) - is_covered
        centred = plan.recipe.centred_fraction
        is_centred = centred > 0.0 and generator.random() < centred
        wants_foreground = generator.random() < plan.recipe.foreground_fraction
        if is_centred and num_labels:
            centre = _near_middle(case, plan, generator, num_labels)
        elif wants_foreground and num_labels:
            points = case.points[int(generator.integers(num_labels))]
            centre = points[int(generator.integers(len(points)))]
        elif is_covered:
            points = case.points[num_labels]
            centre = points[int(generator.integers(len(points)))]
        else:
            centre = _anywhere(case.shape, plan, generator)
        draws.append(PatchDraw(index, tuple(int(x) for x in centre)))
    return draws


def _near_middle(
    case: TrainingCase, plan: Plan, generator: np.random.Generator, num_labels: int
) -> npt.NDArray[np.int64]:
    """A centre near the middle of all labels, as windows over an image come to lie; any slice."""
    boxes = case.boxes[:num_labels]
    first, last = boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)
    patch = patch_in_volume(plan, len(case.shape))
    reach = np.array([int(OFF_MIDDLE * size) for size in patch])
    low, high = (first + last) // 2 - reach, (first + last) // 2 + reach
    if plan.slice_axis is not None and len(patch) > len(plan.patch_size):
        low[plan.slice_axis], high[plan.slice_axis] = first[plan.slice_axis], last[plan.slice_axis]
    return np.asarray(generator.integers(low, high + 1))


def case_shares(cases: Sequence[TrainingCase], plan: Plan) -> npt.NDArray[np.float64] | None:
    """Probability of each case; None where all are equally likely.

    A case with a rare label of the plan counts as many times as the label asks for, one with
    several as many times as the rarest.

    Args:
        cases: Prepared cases.
        plan: Gives the labels and which of them are rare.
    """
    factor = {
        plan.encoding.values.index(value): times
        for value, times in plan.recipe.rare_labels.items()
        if value in plan.encoding.values
    }
    if not factor:
        return None
    weights = np.array(
        [
            max((times for index, times in factor.items() if index in case.classes), default=1.0)
            for case in cases
        ]
    )
    return np.asarray(weights / weights.sum())


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
    inside, target = overlap(centre, size, volume.shape[lead:])
    return padded(volume[(*_whole(lead), *inside)], target, size, fill=fill)


def overlap(
    centre: Sequence[int], size: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The part of a volume that a box covers, in indices of the volume and of the box.

    Args:
        centre: Voxel at which the box's middle (size // 2) lies.
        size: Voxels of the box along each axis.
        shape: Voxels of the volume along each axis.
    """
    inside, target = [], []
    for middle, length, extent in zip(centre, size, shape, strict=True):
        start = middle - length // 2
        first = min(max(start, 0), extent)
        last = max(min(start + length, extent), first)
        inside.append(slice(first, last))
        target.append(slice(first - start, last - start))
    return tuple(inside), tuple(target)


def _whole(axes: int) -> tuple[slice, ...]:
    return (slice(None),) * axes


def padded(found: Tensor, target: tuple[slice, ...], size: Sequence[int], *, fill: float) -> Tensor:
    """A box with what was found of it, filled elsewhere.

    Args:
        found: `[..., *part]`.
        target: Part of the box that it covers.
        size: Voxels of the box along each axis.
        fill: Value elsewhere.
    """
    lead = found.ndim - len(size)
    if tuple(found.shape[lead:]) == tuple(size):
        return found
    box = torch.full((*found.shape[:lead], *size), fill, dtype=found.dtype, device=found.device)
    if found.numel():
        box[(*_whole(lead), *target)] = found
    return box
