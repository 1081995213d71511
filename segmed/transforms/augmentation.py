"""Random changes of a training batch: drawn first, applied after, whole batches at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from segmed.plan.schema import Augmentation

ELASTIC_GRID = 4
"""Control points of an elastic deformation along each axis."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AugmentationDraw:
    """Drawn changes of each of the B patches of a batch; a neutral value changes nothing.

    Attributes:
        flips: Whether each spatial axis is mirrored, `[B, axes]`.
        rotation_rad: Angle about each axis (3D) or in the plane (2D), `[B, 3 or 1]`, rest 0.
        zoom: Enlargement of the content, `[B]`, rest 1.
        elastic_voxels: Displacement at the control points, `[B, axes, *grid]`, in voxels.
        noise_std: Standard deviation of noise, `[B]`, rest 0.
        blur_voxels: Gaussian sigma, `[B]`, rest 0.
        brightness: Factor, `[B]`, rest 1.
        contrast: Factor about the mean, `[B]`, rest 1.
        gamma: Exponent on the patch's own range, `[B]`, rest 1.
        low_resolution: Zoom of a passage through low resolution, `[B]`, rest 1.
        noise_seed: Seed of each patch's noise values, `[B]`.
        spacing_mm: Voxel edge along each axis, in mm; rotations are rotations in space.
    """

    flips: npt.NDArray[np.bool_]
    rotation_rad: Floats
    zoom: Floats
    elastic_voxels: Floats
    noise_std: Floats
    blur_voxels: Floats
    brightness: Floats
    contrast: Floats
    gamma: Floats
    low_resolution: Floats
    noise_seed: npt.NDArray[np.int64]
    spacing_mm: tuple[float, ...]

    @property
    def is_spatial(self) -> bool:
        """Return whether any patch is rotated, zoomed or bent."""
        return bool(self.rotation_rad.any() or (self.zoom != 1).any() or self.elastic_voxels.any())

    def part(self, share: slice) -> AugmentationDraw:
        """The changes of some of the patches."""
        changes: dict[str, Any] = {
            name: value[share]
            for name, value in vars(self).items()
            if isinstance(value, np.ndarray)
        }
        return replace(self, **changes)


def draw_augmentation(
    settings: Augmentation,
    *,
    batch_size: int,
    spacing_mm: Sequence[float],
    generator: np.random.Generator,
) -> AugmentationDraw:
    """Draw the changes of one batch.

    Args:
        settings: Ranges and probabilities.
        batch_size: Patches in the batch, B.
        spacing_mm: Voxel edge along each axis, in mm, for the elastic displacement.
        generator: Source of randomness.

    Returns:
        The draw.
    """
    axes = len(spacing_mm)

    def maybe(p: float, low: float, high: float, rest: float) -> Floats:
        values = generator.uniform(low, high, batch_size)
        return np.where(generator.random(batch_size) < p, values, rest)

    moves = generator.random(batch_size) < settings.p_spatial
    limits = np.deg2rad(np.asarray(settings.rotation_deg, dtype=np.float64))
    rotation = generator.uniform(-1.0, 1.0, (batch_size, len(limits))) * limits
    log_zoom = generator.uniform(-1.0, 1.0, batch_size) * np.log1p(settings.scale)
    bend = generator.standard_normal((batch_size, axes, *[ELASTIC_GRID] * axes))
    scale = np.array([settings.elastic_mm / edge for edge in spacing_mm])
    bend *= scale.reshape(1, axes, *[1] * axes)
    may_flip = np.isin(np.arange(axes), settings.flip_axes)
    shades = settings
    return AugmentationDraw(
        flips=(generator.random((batch_size, axes)) < 0.5) & may_flip,
        rotation_rad=rotation * moves[:, None],
        zoom=np.where(moves, np.exp(log_zoom), 1.0),
        elastic_voxels=bend * moves.reshape(-1, *[1] * (axes + 1)),
        noise_std=maybe(shades.p_noise, 0.0, shades.noise_std, 0.0),
        blur_voxels=maybe(shades.p_blur, 0.3, max(0.3, shades.blur_voxels), 0.0),
        brightness=maybe(shades.p_brightness, 1 - shades.brightness, 1 + shades.brightness, 1.0),
        contrast=maybe(shades.p_contrast, 1 - shades.contrast, 1 + shades.contrast, 1.0),
        gamma=maybe(shades.p_gamma, 1 - shades.gamma, 1 + shades.gamma, 1.0),
        low_resolution=maybe(shades.p_low_resolution, shades.low_resolution, 1.0, 1.0),
        noise_seed=generator.integers(2**31, size=batch_size),
        spacing_mm=tuple(spacing_mm),
    )


def source_size(patch_size: Sequence[int], draw: AugmentationDraw) -> tuple[int, ...]:
    """Size of the box that a batch must be cut with, so that no change looks beyond it.

    Returns:
        The patch's own size if nothing moves, else enough for the rotated and zoomed patch, but at
        most 1.6 times as much along each axis.
    """
    if not draw.is_spatial:
        return tuple(patch_size)
    matrices = offset_matrices(draw, len(patch_size))
    reach = np.abs(matrices).max(axis=0) @ np.asarray(patch_size, dtype=np.float64)
    reach = reach + 4 * np.abs(draw.elastic_voxels).max() + 2
    return tuple(
        int(min(np.ceil(1.6 * size), max(size, np.ceil(need)))) if size > 1 else size
        for size, need in zip(patch_size, reach, strict=True)
    )


def apply_augmentation(
    image: Tensor,
    label: Tensor,
    draw: AugmentationDraw,
    patch_size: Sequence[int],
    *,
    num_shaded: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Apply a draw to a batch.

    Args:
        image: `[B, C, *source]`, as cut with `source_size`.
        label: Class indices, `[B, *source]`.
        draw: The changes.
        patch_size: Size of the result along each axis.
        num_shaded: Leading channels whose intensities are changed; all where not given. The others
            are those of a label map: they are moved alone.

    Returns:
        Image `[B, C, *patch]` and label `[B, *patch]`.
    """
    if draw.is_spatial:
        image, label = _move(image, label, draw, patch_size)
    image, label = _flip(image, label, draw.flips)
    if num_shaded is None or num_shaded == image.shape[1]:
        return _shade(image, draw), label
    shaded = _shade(image[:, :num_shaded], draw)
    return torch.cat([shaded, image[:, num_shaded:]], dim=1), label


def offset_matrices(draw: AugmentationDraw, axes: int) -> Floats:
    """Per patch, the matrix from an offset in the result to the offset in the source, in voxels."""
    count = len(draw.zoom)
    matrix = np.broadcast_to(np.eye(axes), (count, axes, axes)).copy()
    planes = [(0, 1)] if axes == 2 else [(1, 2), (0, 2), (0, 1)]
    for plane, angle in zip(planes, draw.rotation_rad.T, strict=True):
        turn = np.broadcast_to(np.eye(axes), (count, axes, axes)).copy()
        first, second = plane
        turn[:, first, first] = turn[:, second, second] = np.cos(angle)
        turn[:, first, second], turn[:, second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    edges = np.asarray(draw.spacing_mm)
    return np.asarray(matrix * (edges / edges[:, None]) / draw.zoom[:, None, None])


def _move(
    image: Tensor, label: Tensor, draw: AugmentationDraw, patch_size: Sequence[int]
) -> tuple[Tensor, Tensor]:
    axes = len(patch_size)
    device = image.device
    offsets = torch.stack(
        torch.meshgrid(
            *[torch.arange(n, device=device) - n // 2 for n in patch_size], indexing="ij"
        ),
        dim=-1,
    ).float()  # [*patch, axes]
    matrix = torch.from_numpy(offset_matrices(draw, axes)).float().to(device)
    points = torch.einsum("bij,...j->b...i", matrix, offsets)  # [B, *patch, axes]
    if draw.elastic_voxels.any():
        bend = torch.from_numpy(draw.elastic_voxels).float().to(device)
        mode = "bilinear" if axes == 2 else "trilinear"
        field = F.interpolate(bend, size=tuple(patch_size), mode=mode, align_corners=True)
        points = points + field.movedim(1, -1)
    size = torch.tensor(image.shape[2:], device=device)
    # In voxels of the source, then in grid_sample's -1..1 between the outer voxel centres.
    normal = (points + size // 2) * (2.0 / (size - 1).clamp(min=1)) - 1.0
    grid = normal.flip(-1)  # grid_sample counts axes from the last
    moved = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)
    picked = F.grid_sample(
        label[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=True
    )
    return moved, picked[:, 0].to(label.dtype)


def _flip(image: Tensor, label: Tensor, flips: npt.NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    for axis in np.flatnonzero(flips.any(axis=0)):
        rows = torch.from_numpy(flips[:, axis]).to(image.device)
        shape = [-1] + [1] * (label.ndim - 1)
        dim = int(axis) + 1
        label = torch.where(rows.view(shape), label.flip(dim), label)
        image = torch.where(rows.view(*shape, 1), image.flip(dim + 1), image)
    return image, label


def _shade(image: Tensor, draw: AugmentationDraw) -> Tensor:
    """Noise, blur, brightness, contrast, low resolution and gamma, in this order."""
    shape = [-1] + [1] * (image.ndim - 1)
    spatial = tuple(range(2, image.ndim))

    def factor(values: Floats) -> Tensor:
        return torch.from_numpy(values).float().to(image.device).view(shape)

    if draw.noise_std.any():
        image = image + _noise(image, draw)
    if draw.blur_voxels.any():
        image = _per_patch(image, draw.blur_voxels, 0.0, _blur)
    if (draw.brightness != 1).any():
        image = image * factor(draw.brightness)
    if (draw.contrast != 1).any():
        mean = image.mean(dim=spatial, keepdim=True)
        image = mean + (image - mean) * factor(draw.contrast)
    if (draw.low_resolution != 1).any():
        image = _per_patch(image, draw.low_resolution, 1.0, _coarsen)
    if (draw.gamma != 1).any():
        low = image.amin(dim=spatial, keepdim=True)
        span = (image.amax(dim=spatial, keepdim=True) - low).clamp(min=1e-6)
        image = ((image - low) / span).clamp(min=0) ** factor(draw.gamma) * span + low
    return image


def _noise(image: Tensor, draw: AugmentationDraw) -> Tensor:
    """Gaussian noise for the patches that get any, zero for the others."""
    noise = torch.zeros(image.shape)
    for index in np.flatnonzero(draw.noise_std):
        source = torch.Generator().manual_seed(int(draw.noise_seed[index]))
        noise[index].normal_(0.0, float(draw.noise_std[index]), generator=source)
    return noise.to(image.device, non_blocking=True)


def _per_patch(image: Tensor, values: Floats, rest: float, change: object) -> Tensor:
    """Apply a change whose form depends on the value to the patches that are not at rest."""
    assert callable(change)
    return torch.cat(
        [
            patch if value == rest else change(patch, float(value))
            for patch, value in zip(torch.split(image, 1), values, strict=True)
        ]
    )


def _blur(patch: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, one axis after the other."""
    radius = blur_radius(sigma)
    offsets = torch.arange(-radius, radius + 1, device=patch.device, dtype=patch.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    for axis in range(2, patch.ndim):
        lines = patch.movedim(axis, -1)
        flat = F.pad(lines.reshape(1, -1, lines.shape[-1]), (radius, radius), mode="replicate")
        smooth = F.conv1d(flat.transpose(0, 1), kernel.view(1, 1, -1)).transpose(0, 1)
        patch = smooth.reshape(lines.shape).movedim(-1, axis)
    return patch


def blur_radius(sigma: float) -> int:
    """Voxels of a Gaussian kernel on either side of its middle."""
    return max(1, int(3 * sigma + 0.5))


def _coarsen(patch: Tensor, zoom: float) -> Tensor:
    """Down to a lower resolution and back, as a coarser scan would look."""
    size = patch.shape[2:]
    small = [max(1, round(n * zoom)) for n in size]
    mode = "bilinear" if len(size) == 2 else "trilinear"
    coarse = F.interpolate(patch, size=small, mode="nearest")
    return F.interpolate(coarse, size=size, mode=mode, align_corners=False)
