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

from segmed.plan.schema import Augmentation, Plan
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


def shade_images(image: Tensor, factors: Tensor, plan: Plan) -> Tensor:
    """`shade` of the channels of images; those of a first stage's label map stay as they are.

    Args:
        image: `[B, C, *patch]`.
        factors: As for `shade`.
        plan: Gives the ranges, and how many channels are those of images.
    """
    settings = plan.recipe.augmentation
    if not plan.refines:
        return shade(image, factors, settings)
    shaded = shade(image[:, : plan.in_channels], factors, settings)
    return torch.cat([shaded, image[:, plan.in_channels :]], dim=1)


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
    noise_std, _, brightness, contrast, gamma = (
        factors[:, column].view(view) for column in range(len(SHADES))
    )
    if settings.p_noise > 0:
        image = torch.addcmul(image, torch.randn_like(image), noise_std)
    if settings.p_blur > 0:
        image = _blur(image, factors[:, SHADES.index("blur_voxels")], settings)
    mean = image.mean(dim=spatial, keepdim=True) * brightness
    image = torch.addcmul(mean * (1 - contrast), image, brightness * contrast)
    if settings.p_low_resolution > 0:
        image = _coarsen(image, factors[:, len(SHADES) :])
    low = image.amin(dim=spatial, keepdim=True)
    span = (image.amax(dim=spatial, keepdim=True) - low).clamp(min=1e-6)
    bent = torch.addcmul(low, ((image - low) / span).clamp_(min=0).pow_(gamma), span)
    return torch.where(gamma == 1, image, bent)


def _blur(image: Tensor, sigma: Tensor, settings: Augmentation) -> Tensor:
    """Gaussian blur by each patch's sigma, `[B]`; sigma 0 gives the patch itself.

    Taps beyond three sigma have weight 0, as in the branching path.
    """
    radius = blur_radius(max(0.3, settings.blur_voxels))
    offsets = torch.arange(-radius, radius + 1, device=image.device, dtype=torch.float32)
    width = sigma.clamp(min=1e-3)[:, None]
    reach = (3 * width + 0.5).floor().clamp(min=1)
    taps = torch.exp(-0.5 * (offsets / width) ** 2) * (reach >= offsets.abs())
    taps = taps / taps.sum(1, keepdim=True)  # [B, taps]
    result = image
    for axis in range(2, image.ndim):
        index = torch.arange(image.shape[axis], device=image.device)
        # Voxel that each tap reads for each voxel; those beyond the border are the border's.
        read = (index + offsets.long()[:, None]).clamp(0, len(index) - 1)  # [taps, size]
        weights = torch.tensordot(taps, (read[..., None] == index).float(), dims=1)
        result = _along(result, weights, axis)
    return torch.where(sigma.view(-1, *[1] * (image.ndim - 1)) > 0, result, image)


def _coarsen(image: Tensor, sizes: Tensor) -> Tensor:
    """Down to each patch's coarse size by its nearest voxels and back linearly, axis by axis."""
    result = image
    is_at_rest = torch.ones(len(image), dtype=torch.bool, device=image.device)
    for axis in range(2, image.ndim):
        size = image.shape[axis]
        coarse = sizes[:, axis - 2, None]  # [B, 1]
        index = torch.arange(size, device=image.device, dtype=torch.float32)
        at = ((index + 0.5) * (coarse / size) - 0.5).clamp(min=0)  # [B, size], in coarse voxels
        below = at.floor()
        above = torch.minimum(below + 1, coarse - 1)
        share = (at - below)[..., None]
        lower, upper = (
            ((row * (size / coarse)).floor().clamp(max=size - 1)[..., None] == index).float()
            for row in (below, above)
        )  # voxel of the patch that each voxel of the coarse grid was, [B, size, size]
        result = _along(result, (1 - share) * lower + share * upper, axis)
        is_at_rest &= sizes[:, axis - 2] == size
    return torch.where(is_at_rest.view(-1, *[1] * (image.ndim - 1)), image, result)


def _along(image: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Sums of voxels along one axis, by one product of matrices.

    Args:
        image: `[B, C, *patch]`.
        weights: Of each voxel in each sum, `[B, size, size]`.
        axis: Axis of `image`.
    """
    if axis == image.ndim - 1:
        return (image.flatten(1, -2) @ weights.mT).view(image.shape)
    return (weights[:, None] @ image.flatten(1, axis - 1).flatten(3)).view(image.shape)
