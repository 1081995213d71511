"""Training cases in the memory of the device, and patches gathered straight out of them.

One gather cuts, rotates, zooms, bends and mirrors; the shapes do not depend on the draw, so a step
can be captured as a graph. It gives what `make_batch` and `apply_augmentation` give from the same
draw, up to the rounding of coordinates and voxels beyond 1.6 times the patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import floor, prod
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from segmed.plan.schema import Plan
from segmed.training.distributed import ProcessGroup
from segmed.training.sampling import (
    PatchDraw,
    TrainingCase,
    draw_patches,
    patch_in_volume,
    step_generator,
)
from segmed.training.shading import SHADES, shade_factors
from segmed.transforms.augmentation import (
    ELASTIC_GRID,
    AugmentationDraw,
    draw_augmentation,
    offset_matrices,
)

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
        image = torch.empty((plan.in_channels, ends[-1]), device=device)
        label = torch.empty(ends[-1], dtype=label_type(plan), device=device)
        for case, start, end in zip(cases, ends, ends[1:], strict=False):
            image[:, start:end] = case.image.flatten(1).to(device)
            label[start:end] = case.label.flatten().to(device)
        return cls(image, label, tuple(ends[:-1]), tuple(case.shape for case in cases))

    @staticmethod
    def num_bytes(cases: Sequence[TrainingCase], plan: Plan) -> int:
        """Memory on the device of so many cases."""
        voxels = sum(prod(case.shape) for case in cases)
        return voxels * (4 * plan.in_channels + label_type(plan).itemsize)

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
    spacing_mm = [
        edge for axis, edge in enumerate(plan.preprocessing.spacing_mm) if axis != plan.slice_axis
    ]
    draw = draw_augmentation(
        plan.recipe.augmentation,
        batch_size=batch_size,
        spacing_mm=spacing_mm,
        generator=generator,
    )
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


@dataclass(frozen=True)
class _Split:
    """The columns of `PatchRows.floats`."""

    fill: Tensor
    centre: Tensor
    matrix: Tensor
    bend: Tensor
    shades: Tensor


def _split(floats: Tensor, *, volume_axes: int, axes: int) -> _Split:
    count = len(floats)
    widths = [1, volume_axes, axes**2, axes * ELASTIC_GRID**axes, len(SHADES) + axes]
    fill, centre, matrix, bend, shades = torch.split(floats, widths, dim=1)
    grid = [ELASTIC_GRID] * axes
    return _Split(
        fill, centre, matrix.view(count, axes, axes), bend.view(count, axes, *grid), shades
    )


def gather_patches(
    voxels: VoxelStore, places: Tensor, floats: Tensor, plan: Plan
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut and move the patches of a batch, all on one device.

    Args:
        voxels: The cases, or the parts of them that the batch needs.
        places: From `PatchRows`, on the device.
        floats: From `PatchRows`, on the device.
        plan: Gives the patch.

    Returns:
        Image `[B, C, *patch]` float32, class indices `[B, *patch]` int64, and the shade factors
        `[B, F]` for `segmed.training.shading.shade`.
    """
    axes, volume_axes, count = len(plan.patch_size), places.shape[1] // 2, len(places)
    part = _split(floats, volume_axes=volume_axes, axes=axes)
    points = _points(part, plan, volume_axes)  # [B, volume axes, *patch in the volume]
    box = patch_in_volume(plan, volume_axes)
    view = (count, volume_axes, *[1] * volume_axes)
    shape = places[:, 1 : 1 + volume_axes].view(view)
    strides = places[:, 1 + volume_axes :].view(view)
    start = places[:, 0].view(count, *[1] * volume_axes)
    fill = part.fill.view(1, count, *[1] * volume_axes)
    moved = [axis for axis in range(volume_axes) if box[axis] > 1 or volume_axes == axes]

    def at(index: Tensor, source: Tensor, beyond: Tensor | int) -> Tensor:
        is_inside = ((index >= 0) & (index < shape)).all(1)
        flat = index[:, 0]
        for axis in range(1, volume_axes):
            flat = flat * strides[:, axis] + index[:, axis]
        taken = source[..., torch.where(is_inside, flat + start, 0)]
        return torch.where(is_inside, taken, beyond)

    below = points.floor()
    share = points - below
    below = below.long()
    image = torch.zeros((voxels.image.shape[0], count, *box), device=places.device)
    for corner in product((0, 1), repeat=len(moved)):
        index, weight = below, torch.ones((), device=places.device)
        for axis, step in zip(moved, corner, strict=True):
            weight = weight * (share[:, axis] if step else 1 - share[:, axis])
        if any(corner):
            index = torch.stack(
                [
                    below[:, axis] + (corner[moved.index(axis)] if axis in moved else 0)
                    for axis in range(volume_axes)
                ],
                dim=1,
            )
        image = image + weight * at(index, voxels.image, fill)
    label = at((points + 0.5).floor().long(), voxels.label, 0).long()
    size = (count, *plan.patch_size)
    return image.transpose(0, 1).reshape(count, -1, *plan.patch_size), label.view(size), part.shades


def _points(part: _Split, plan: Plan, volume_axes: int) -> Tensor:
    """Voxel coordinates of every voxel of every patch, `[B, volume axes, *patch in the volume]`."""
    patch, axes = plan.patch_size, len(plan.patch_size)
    device = part.centre.device
    grids = [torch.arange(n, device=device, dtype=torch.float32) - n // 2 for n in patch]
    offsets = torch.stack(torch.meshgrid(*grids, indexing="ij"))  # [axes, *patch]
    turned = (part.matrix @ offsets.view(1, axes, prod(patch))).view(-1, axes, *patch)
    mode = "trilinear" if axes == 3 else "bilinear"
    points = turned + F.interpolate(part.bend, size=patch, mode=mode, align_corners=True)
    if volume_axes > axes:
        assert plan.slice_axis is not None
        points = points.unsqueeze(plan.slice_axis + 2)
        flat = torch.zeros_like(points[:, :1])
        points = torch.cat([points[:, : plan.slice_axis], flat, points[:, plan.slice_axis :]], 1)
    return points + part.centre.view(*part.centre.shape, *[1] * volume_axes)
