"""Changes of intensity without branches: every patch passes all of them, some without effect.

The arithmetic is that of `segmed.transforms.augmentation`, whose shapes and calls depend on the
draw; here only numbers do, so that a training step can be captured as a graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segmed.plan.schema import Augmentation
from segmed.transforms.augmentation import AugmentationDraw, blur_radius

SHADES = ("noise_std", "blur_voxels", "brightness", "contrast", "gamma")
"""Columns of the factors, before the coarse size along each axis."""


def shade_factors(draw: AugmentationDraw, patch_size: Sequence[int]) -> npt.NDArray[np.float64]:
    """The numbers that `shade` needs of each patch, `[B, len(SHADES) + axes]`.

    The last columns are the sizes of a passage through low resolution; the patch's own at rest.
    """
    columns = [getattr(draw, name) for name in SHADES]
    # Python's round, as the branching path has it: half to even.
    sizes = [[max(1, round(n * zoom)) for zoom in draw.low_resolution] for n in patch_size]
    return np.stack([*columns, *np.asarray(sizes, dtype=np.float64)], axis=1)


def shade(image: Tensor, factors: Tensor, settings: Augmentation) -> Tensor:
    """Noise, blur, brightness, contrast, low resolution and gamma, in this order.

    Args:
        image: `[B, C, *patch]`.
        factors: `[B, len(SHADES) + axes]`, from `shade_factors`, on the image's device.
        settings: Bounds the blur; what never occurs is left out.

    Returns:
        `[B, C, *patch]`. Noise comes from the device's generator.
    """
    axes = image.ndim - 2
    view = [-1] + [1] * (axes + 1)
    spatial = tuple(range(2, image.ndim))
    noise_std, sigma, brightness, contrast, gamma = (
        factors[:, column].view(view) for column in range(len(SHADES))
    )
    if settings.p_noise > 0:
        image = image + torch.randn_like(image) * noise_std
    if settings.p_blur > 0:
        image = _blur(image, sigma, blur_radius(max(0.3, settings.blur_voxels)))
    image = image * brightness
    mean = image.mean(dim=spatial, keepdim=True)
    image = torch.where(contrast == 1, image, mean + (image - mean) * contrast)
    if settings.p_low_resolution > 0:
        image = _coarsen(image, factors[:, len(SHADES) :])
    low = image.amin(dim=spatial, keepdim=True)
    span = (image.amax(dim=spatial, keepdim=True) - low).clamp(min=1e-6)
    bent = ((image - low) / span).clamp(min=0) ** gamma * span + low
    return torch.where(gamma == 1, image, bent)


def _blur(image: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Gaussian blur by each patch's sigma; sigma 0 gives the patch itself.

    Taps beyond three sigma have weight 0, as in the branching path.
    """
    result = image
    offsets = range(-radius, radius + 1)
    width = sigma.clamp(min=1e-3)
    # The radius of each patch's own kernel; at rest the kernel is its middle tap alone.
    reach = (3 * width + 0.5).floor().clamp(min=1) * (sigma > 0)
    taps = [torch.exp(-0.5 * (k / width) ** 2) * (reach >= abs(k)) for k in offsets]
    total = torch.stack(taps).sum(0)
    for axis in range(2, image.ndim):
        size = result.shape[axis]
        index = torch.arange(size, device=image.device)
        smooth = torch.zeros_like(result)
        for k, tap in zip(offsets, taps, strict=True):
            smooth = smooth + result.index_select(axis, (index + k).clamp(0, size - 1)) * tap
        result = smooth / total
    return torch.where(sigma > 0, result, image)


def _coarsen(image: Tensor, sizes: Tensor) -> Tensor:
    """Down to each patch's coarse size by its nearest voxels and back linearly, axis by axis."""
    result = image
    for axis in range(2, image.ndim):
        size = image.shape[axis]
        coarse = sizes[:, axis - 2, None]  # [B, 1]
        index = torch.arange(size, device=image.device, dtype=torch.float32)
        at = ((index + 0.5) * (coarse / size) - 0.5).clamp(min=0)  # [B, size], in coarse voxels
        below = at.floor()
        above = torch.minimum(below + 1, coarse - 1)
        weight = at - below
        parts = []
        for row, share in ((below, 1 - weight), (above, weight)):
            nearest = (row * (size / coarse)).floor().clamp(max=size - 1).long()  # in fine voxels
            shape = [len(image), 1, *[1] * (image.ndim - 2)]
            shape[axis] = size
            expanded = nearest.view(shape).expand(
                len(image), image.shape[1], *result.shape[2:axis], size, *result.shape[axis + 1 :]
            )
            parts.append(result.gather(axis, expanded) * share.view(shape))
        result = parts[0] + parts[1]
    is_at_rest = torch.ones(len(image), dtype=torch.bool, device=image.device)
    for axis in range(2, image.ndim):
        is_at_rest &= sizes[:, axis - 2] == image.shape[axis]
    return torch.where(is_at_rest.view(-1, *[1] * (image.ndim - 1)), image, result)
