"""Training cases that stay on the device, and patches gathered straight out of them.

One gather cuts, rotates, zooms, bends and mirrors; the shapes do not depend on the draw, so a step
can be captured as a graph. It gives what `make_batch` and `apply_augmentation` give from the same
draw, up to the rounding of coordinates and voxels beyond 1.6 times the patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
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


@dataclass(frozen=True)
class ResidentCases:
    """Prepared cases end to end in two tensors of one device.

    Attributes:
        image: `[C, N]` float32, all voxels of all cases.
        label: `[N]`, class indices, of the narrowest sufficient type.
        starts: First voxel of each case.
        shapes: Voxels of each case along each axis.
        lowest: Value beyond the border of each case.
    """

    image: Tensor
    label: Tensor
    starts: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    lowest: tuple[float, ...]

    @classmethod
    def of(cls, cases: Sequence[TrainingCase], device: torch.device) -> ResidentCases:
        """Copy cases to a device."""
        ends = np.cumsum([0, *(prod(case.shape) for case in cases)])
        return cls(
            torch.cat([case.image.flatten(1).to(device) for case in cases], 1),
            torch.cat([case.label.flatten().to(device) for case in cases]),
            tuple(int(n) for n in ends[:-1]),
            tuple(case.shape for case in cases),
            tuple(case.lowest for case in cases),
        )


@dataclass(frozen=True)
class PatchRows:
    """Parameters of one batch for the device, on the host.

    Attributes:
        places: `[B, 1 + axes]` int64: first voxel and shape of the case.
        floats: `[B, P]` float32: value beyond the border, centre, matrix, bend, shades.
        seed: Seed of the batch's noise.
        case_ids: Case of each patch.
    """

    places: Tensor
    floats: Tensor
    seed: int
    case_ids: tuple[str, ...]


def patch_rows(
    cases: Sequence[TrainingCase],
    resident: ResidentCases,
    plan: Plan,
    *,
    seed: int,
    step: int,
    process_group: ProcessGroup = ProcessGroup(),
) -> PatchRows:
    """Draw the batch of one step, exactly as `segmed.training.data.make_batch` draws it.

    Args:
        cases: The cases in the order of `resident`; their voxels are not read.
        resident: Their device memory.
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
    places = [[resident.starts[p.case], *resident.shapes[p.case]] for p in patches]
    fill = np.array([[resident.lowest[p.case]] for p in patches])
    spatial = _spatial_floats(patches, draw, plan, axes=len(resident.shapes[0]))
    floats = np.concatenate([fill, spatial, shade_factors(draw, plan.patch_size)], axis=1)
    return PatchRows(
        torch.tensor(places),
        torch.from_numpy(floats).float(),
        int(draw.noise_seed[0]),
        tuple(cases[p.case].id for p in patches),
    )


def _spatial_floats(
    patches: Sequence[PatchDraw], draw: AugmentationDraw, plan: Plan, *, axes: int
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Centre `[axes]`, matrix and bend of each patch, mirrored axes included."""
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
    count = len(patches)
    return np.concatenate([centre, matrix.reshape(count, -1), bend.reshape(count, -1)], axis=1)


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
    resident: ResidentCases, places: Tensor, floats: Tensor, plan: Plan
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut and move the patches of a batch, all on the device of `resident`.

    Args:
        resident: The cases.
        places: From `PatchRows`, on the device.
        floats: From `PatchRows`, on the device.
        plan: Gives the patch.

    Returns:
        Image `[B, C, *patch]` float32, class indices `[B, *patch]` int64, and the shade factors
        `[B, F]` for `segmed.training.shading.shade`.
    """
    axes, volume_axes, count = len(plan.patch_size), places.shape[1] - 1, len(places)
    part = _split(floats, volume_axes=volume_axes, axes=axes)
    points = _points(part, plan, volume_axes)  # [B, volume axes, *patch in the volume]
    box = patch_in_volume(plan, volume_axes)
    view = (count, volume_axes, *[1] * volume_axes)
    shape = places[:, 1:].view(view)
    start = places[:, 0].view(count, *[1] * volume_axes)
    fill = part.fill.view(1, count, *[1] * volume_axes)
    moved = [axis for axis in range(volume_axes) if box[axis] > 1 or volume_axes == axes]

    def at(index: Tensor, source: Tensor, beyond: Tensor | int) -> Tensor:
        is_inside = ((index >= 0) & (index < shape)).all(1)
        flat = index[:, 0]
        for axis in range(1, volume_axes):
            flat = flat * shape[:, axis] + index[:, axis]
        taken = source[..., torch.where(is_inside, flat + start, 0)]
        return torch.where(is_inside, taken, beyond)

    below = points.floor()
    share = points - below
    below = below.long()
    image = torch.zeros((resident.image.shape[0], count, *box), device=places.device)
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
        image = image + weight * at(index, resident.image, fill)
    label = at((points + 0.5).floor().long(), resident.label, 0).long()
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
