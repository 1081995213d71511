"""Training cases in the memory of the device, and the numbers by which patches are read there.

`segmed.training.gathering` cuts and moves the patches on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, prod
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segmed.plan.schema import Plan
from segmed.training.distributed import ProcessGroup
from segmed.training.sampling import (
    PatchDraw,
    TrainingCase,
    draw_patches,
    step_generator,
)
from segmed.training.shading import shade_factors
from segmed.transforms.augmentation import AugmentationDraw, offset_matrices
from segmed.transforms.rand_augment import RandAugment

Floats = npt.NDArray[np.float64]

ROUNDING = 0.01
"""More than 32-bit coordinates differ from those that a box is found by, in voxels."""


class VoxelStore(Protocol):
    """Voxels of training cases in the memory of a device, in two flat tensors."""

    @property
    def image(self) -> Tensor:
        """`[C, N]` float32."""
        ...

    @property
    def label(self) -> Tensor:
        """Class indices, `[N]`."""
        ...

    def places(self, batch: DrawnBatch, step: int) -> list[Place]:
        """Place of the voxels of each patch; several threads may call it, each for other steps.

        Args:
            batch: The patches.
            step: Number of their step.
        """
        ...

    def send(self, step: int) -> None:
        """Bring the voxels of a step to the device, in order with the work that follows."""
        ...

    def used(self, step: int) -> None:
        """All work that reads the voxels of a step is queued."""
        ...


Place = tuple[int, tuple[int, ...], tuple[int, ...]]
"""Position that the first voxel of a case has or would have in a flat tensor, shape of the case,
and shape of the box of it that is there."""


def label_type(plan: Plan) -> torch.dtype:
    """The narrowest type of class indices."""
    return torch.uint8 if len(plan.encoding.stored_values) <= 256 else torch.int32


@dataclass(frozen=True)
class ResidentCases:
    """Prepared cases end to end in two tensors of one device.

    Attributes:
        image: `[C, N]` float32, all voxels of all cases.
        label: `[N]`, class indices, of the narrowest sufficient type.
        starts: First voxel of each case.
        shapes: Voxels of each case along each axis.
    """

    image: Tensor
    label: Tensor
    starts: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, cases: Sequence[TrainingCase], plan: Plan, device: torch.device) -> ResidentCases:
        """Copy cases to a device, one at a time: no more is needed there than what stays."""
        ends = [int(n) for n in np.cumsum([0, *(prod(case.shape) for case in cases)])]
        image = torch.empty((plan.network_channels, ends[-1]), device=device)
        label = torch.empty(ends[-1], dtype=label_type(plan), device=device)
        for case, start, end in zip(cases, ends, ends[1:], strict=False):
            image[:, start:end] = case.image.flatten(1).to(device)
            label[start:end] = case.label.flatten().to(device)
        return cls(image, label, tuple(ends[:-1]), tuple(case.shape for case in cases))

    @staticmethod
    def num_bytes(cases: Sequence[TrainingCase], plan: Plan) -> int:
        """Memory on the device of so many cases."""
        voxels = sum(prod(case.shape) for case in cases)
        return voxels * (4 * plan.network_channels + label_type(plan).itemsize)

    def places(self, batch: DrawnBatch, step: int) -> list[Place]:
        """Place of the case of each patch."""
        return [
            (self.starts[patch.case], self.shapes[patch.case], self.shapes[patch.case])
            for patch in batch.patches
        ]

    def send(self, step: int) -> None:
        """Nothing is to be brought."""

    def used(self, step: int) -> None:
        """Nothing is overwritten."""


@dataclass(frozen=True)
class DrawnBatch:
    """Patches of one batch and their changes, mirrored axes included, on the host.

    Attributes:
        patches: Case and centre of each.
        centre: Voxel coordinates of each patch's middle, `[B, axes of the volume]`.
        matrix: From offsets in the patch to those in the volume, `[B, axes, axes]`.
        bend: Displacement at the control points, `[B, axes, *grid]`, in voxels.
        moved: Axes of the volume along which a patch extends.
        patch_size: Voxels of a patch along each of its axes.
    """

    patches: Sequence[PatchDraw]
    centre: Floats
    matrix: Floats
    bend: Floats
    moved: tuple[int, ...]
    patch_size: tuple[int, ...]

    def floats(self) -> Floats:
        """All numbers of a patch in one row, `[B, P]`."""
        count = len(self.patches)
        return np.concatenate(
            [self.centre, self.matrix.reshape(count, -1), self.bend.reshape(count, -1)], axis=1
        )

    def box(self, number: int) -> list[tuple[int, int]]:
        """First voxel and the one after the last along each axis that a patch reads.

        It is not cut at the border of the volume.

        Args:
            number: Number of the patch.
        """
        middle = self.centre[number]
        box = [(int(at), int(at) + 1) for at in middle]
        first = -np.array([n // 2 for n in self.patch_size])
        last = first + np.array(self.patch_size) - 1
        ends = np.stack([self.matrix[number] * first, self.matrix[number] * last])
        bend = self.bend[number].reshape(len(self.patch_size), -1)
        low = ends.min(axis=0).sum(axis=1) + bend.min(axis=1) - ROUNDING
        high = ends.max(axis=0).sum(axis=1) + bend.max(axis=1) + ROUNDING
        for row, axis in enumerate(self.moved):
            # The voxel below a point and the one above it are mixed.
            box[axis] = (
                floor(middle[axis] + low[row]),
                floor(middle[axis] + high[row]) + 2,
            )
        return box


@dataclass(frozen=True)
class PatchRows:
    """Parameters of one batch for the device, on the host.

    Attributes:
        step: Number of the step.
        places: `[B, 1 + 2 * axes]` int64: first voxel, shape of the case, shape of the box.
        floats: `[B, P]` float32: value beyond the border, centre, matrix, bend, shades.
        seed: Seed of the batch's noise.
        case_ids: Case of each patch.
    """

    step: int
    places: Tensor
    floats: Tensor
    seed: int
    case_ids: tuple[str, ...]


def patch_rows(
    cases: Sequence[TrainingCase],
    voxels: VoxelStore,
    plan: Plan,
    *,
    seed: int,
    step: int,
    process_group: ProcessGroup = ProcessGroup(),
) -> PatchRows:
    """Draw the batch of one step, exactly as `segmed.training.data.make_batch` draws it.

    Args:
        cases: The cases in the order of `voxels`.
        voxels: Their device memory.
        plan: Batch, patch and augmentation.
        seed: Seed of the run.
        step: Number of the step.
        process_group: The processes that share out the step's patches.
    """
    generator = step_generator(seed, step)
    batch_size = process_group.whole_batch(plan.recipe.batch_size)
    patches = draw_patches(cases, plan, generator, batch_size=batch_size)
    draw = RandAugment.of(plan).drawn(batch_size, generator)
    share = process_group.share(plan.recipe.batch_size)
    patches, draw = patches[share], draw.part(share)
    batch = _drawn(patches, draw, plan, axes=len(cases[0].shape))
    places = [[start, *shape, *box] for start, shape, box in voxels.places(batch, step)]
    fill = np.array([[cases[p.case].lowest] for p in patches])
    floats = np.concatenate([fill, batch.floats(), shade_factors(draw, plan.patch_size)], axis=1)
    return PatchRows(
        step,
        torch.tensor(places),
        torch.from_numpy(floats).float(),
        int(draw.noise_seed[0]),
        tuple(cases[p.case].id for p in patches),
    )


def _drawn(
    patches: Sequence[PatchDraw], draw: AugmentationDraw, plan: Plan, *, axes: int
) -> DrawnBatch:
    """Centre, matrix and bend of each patch, mirrored axes included.

    Args:
        patches: Case and centre of each patch.
        draw: Their changes.
        plan: Gives the patch.
        axes: Axes of a volume.
    """
    patch = plan.patch_size
    matrix = offset_matrices(draw, len(patch))
    centre = np.array([p.centre for p in patches], dtype=np.float64)  # [B, axes of the volume]
    moved = [axis for axis in range(axes) if axes == len(patch) or axis != plan.slice_axis]
    bend = draw.elastic_voxels.copy()
    for axis, size in enumerate(patch):
        # Offsets of a mirrored axis run backwards, and so does its bend.
        for row in np.flatnonzero(draw.flips[:, axis]):
            centre[row, moved] -= matrix[row, :, axis] * (1 - size % 2)
            matrix[row, :, axis] *= -1
            bend[row] = np.flip(bend[row], axis + 1)
    return DrawnBatch(patches, centre, matrix, bend, tuple(moved), patch)
