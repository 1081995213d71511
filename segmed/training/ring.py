"""Patches on their way to the device, where the prepared cases do not fit into its memory.

A ring of slots, each of one step: threads read the box of each patch from the prepared cases into
pinned memory, a stream of its own copies it to the device while earlier steps are computed, and
`segmed.training.gathering` reads it there as it reads whole cases, to the same bits.
The memory does not depend on the number or size of the cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, prod

import numpy as np
import torch
from torch import Tensor

from segmed.errors import TrainingError
from segmed.plan.schema import Plan
from segmed.training.resident import DrawnBatch, Place, label_type
from segmed.training.sampling import TrainingCase, patch_in_volume
from segmed.transforms.augmentation import AugmentationDraw, offset_matrices

SLOTS = 4
"""Steps whose patches are in memory at once: the one computed and those made ahead."""

AHEAD = SLOTS - 1
"""Steps that are read ahead, each by a thread; a slot is refilled once its step is taken."""

ANGLES = 9
"""Angles tried about each axis in search of the largest box."""

LARGEST_BEND = 8.0
"""Standard deviations of the elastic displacement that a box has room for: 1e-15 are larger."""


def box_voxels(cases: Sequence[TrainingCase], plan: Plan) -> int:
    """Voxels of the largest box that a patch can read.

    Args:
        cases: Training cases; a box ends at the border of its volume.
        plan: Patch and augmentation.
    """
    reach = _reach(plan)
    axes = len(cases[0].shape)
    patch = list(patch_in_volume(plan, axes))
    moved = [axis for axis in range(axes) if axes == len(reach) or axis != plan.slice_axis]
    for axis, extent in zip(moved, reach, strict=True):
        patch[axis] = extent
    largest = [max(case.shape[axis] for case in cases) for axis in range(axes)]
    return prod(min(extent, most) for extent, most in zip(patch, largest, strict=True))


def _reach(plan: Plan) -> list[int]:
    """Most voxels along each axis of a patch that a rotated, zoomed and bent one reads."""
    settings, patch = plan.recipe.augmentation, np.array(plan.patch_size, dtype=np.float64)
    axes = len(patch)
    edges = [e for axis, e in enumerate(plan.preprocessing.spacing_mm) if axis != plan.slice_axis]
    if settings.p_spatial == 0:
        return [int(n) + 3 for n in patch]
    limits = [np.deg2rad(limit) for limit in settings.rotation_deg]
    turns = np.array(list(product(*[np.linspace(-limit, limit, ANGLES) for limit in limits])))
    count, none = len(turns), np.ones(len(turns))
    draw = AugmentationDraw(
        flips=np.zeros((count, axes), dtype=np.bool_),
        rotation_rad=turns,
        zoom=none / (1 + settings.scale),
        elastic_voxels=np.zeros((count, axes, *[1] * axes)),
        noise_std=none,
        blur_voxels=none,
        brightness=none,
        contrast=none,
        gamma=none,
        low_resolution=none,
        noise_seed=np.zeros(count, dtype=np.int64),
        spacing_mm=tuple(edges),
    )
    extents = (np.abs(offset_matrices(draw, axes)) @ patch).max(axis=0)
    # Between two angles tried, a sum of sines is larger by at most the curvature of half a step.
    step = max(limit / (ANGLES - 1) for limit in limits)
    extents *= 1 + len(limits) * step**2
    bend = 2 * LARGEST_BEND * np.array([settings.elastic_mm / edge for edge in edges])
    return [ceil(extent) + 3 for extent in extents + bend]


@dataclass
class _BoxSlot:
    """Pinned memory of one step, and the events between which it may not be written.

    Attributes:
        image: `[B, C, V]` float32.
        label: `[B, V]`, class indices.
        sizes: Voxels of each patch's box.
        copied: Its copy on the device is made.
        used: All work that reads this copy is done.
    """

    image: Tensor
    label: Tensor
    sizes: list[int]
    copied: torch.cuda.Event | None = None
    used: torch.cuda.Event | None = None


class PatchRing:
    """Boxes of the patches of a few steps, on a device.

    Args:
        cases: Prepared cases, on the host or on disk.
        plan: Patch, batch and augmentation.
        device: Device of the training; on a CPU copies are made at once.

    Attributes:
        image: `[C, N]` float32.
        label: `[N]`, class indices.
    """

    def __init__(self, cases: Sequence[TrainingCase], plan: Plan, device: torch.device) -> None:
        self._cases = cases
        self._device = device
        self._voxels = box_voxels(cases, plan)
        batch, channels = plan.recipe.batch_size, plan.network_channels
        count, dtype = SLOTS * batch * self._voxels, label_type(plan)
        self.image = torch.zeros((channels, count), device=device)
        self.label = torch.zeros(count, dtype=dtype, device=device)
        is_pinned = device.type == "cuda"
        self._slots = [
            _BoxSlot(
                torch.zeros((batch, channels, self._voxels), pin_memory=is_pinned),
                torch.zeros((batch, self._voxels), dtype=dtype, pin_memory=is_pinned),
                [0] * batch,
            )
            for _ in range(SLOTS)
        ]
        self._stream = torch.cuda.Stream(device) if is_pinned else None

    @staticmethod
    def num_bytes(cases: Sequence[TrainingCase], plan: Plan) -> int:
        """Memory on the device, and as much pinned memory on the host."""
        voxel = 4 * plan.network_channels + label_type(plan).itemsize
        return SLOTS * plan.recipe.batch_size * box_voxels(cases, plan) * voxel

    def places(self, batch: DrawnBatch, step: int) -> list[Place]:
        """Read the box of each patch into the slot of a step.

        At most `AHEAD` steps beyond the one that was sent last may be read.

        Raises:
            TrainingError: A box is larger than a slot.
        """
        slot = self._slots[step % SLOTS]
        if slot.copied is not None:
            slot.copied.synchronize()
        found: list[Place] = []
        for number, patch in enumerate(batch.patches):
            case = self._cases[patch.case]
            low, size = _within(batch.box(number), case.shape)
            count = prod(size)
            if count > self._voxels:
                raise TrainingError(
                    f"a patch of case {case.id} reads {count} voxels, its place has "
                    f"{self._voxels}: lower recipe.augmentation.elastic_mm in the plan"
                )
            centre = [first + edge // 2 for first, edge in zip(low, size, strict=True)]
            image, label = case.patch(centre, size)
            slot.image[number, :, :count] = image.flatten(1)
            slot.label[number, :count] = label.flatten()
            slot.sizes[number] = count
            before = 0  # voxels between the first of the case and the first of the box, in its rows
            for first, edge in zip(low, size, strict=True):
                before = before * edge + first
            found.append((self._start(step, number) - before, case.shape, size))
        return found

    def send(self, step: int) -> None:
        """Copy a step's slot to the device, beside the steps that are computed there.

        What is queued next on the present stream waits for the copy; the host does not.
        """
        slot = self._slots[step % SLOTS]
        if self._stream is None:
            self._copy(slot, step)
            return
        if slot.used is not None:
            self._stream.wait_event(slot.used)
        with torch.cuda.stream(self._stream):
            self._copy(slot, step)
        slot.copied = torch.cuda.Event()
        slot.copied.record(self._stream)
        torch.cuda.current_stream(self._device).wait_event(slot.copied)

    def used(self, step: int) -> None:
        """Let the slot of a step be overwritten once the work queued so far is done."""
        if self._stream is not None:
            slot = self._slots[step % SLOTS]
            slot.used = torch.cuda.Event()
            slot.used.record(torch.cuda.current_stream(self._device))

    def _start(self, step: int, number: int) -> int:
        return (step % SLOTS * len(self._slots[0].sizes) + number) * self._voxels

    def _copy(self, slot: _BoxSlot, step: int) -> None:
        for number, count in enumerate(slot.sizes):
            start = self._start(step, number)
            for channel, row in zip(self.image, slot.image[number], strict=True):
                channel[start : start + count].copy_(row[:count], non_blocking=True)
            self.label[start : start + count].copy_(slot.label[number, :count], non_blocking=True)


def _within(
    box: Sequence[tuple[int, int]], shape: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First voxel and size of the part of a box that lies in a volume.

    Where a box is beyond the border this is the border, which a gather names with weight 0.
    """
    low = [min(max(first, 0), extent - 1) for (first, _), extent in zip(box, shape, strict=True)]
    high = [
        max(min(last, extent), start + 1)
        for (_, last), extent, start in zip(box, shape, low, strict=True)
    ]
    return tuple(low), tuple(end - start for start, end in zip(low, high, strict=True))
