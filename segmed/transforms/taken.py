"""Images as the transforms of this package take them: one image, channel first."""

from __future__ import annotations

import torch
from torch import Tensor

from segmed.errors import UsageError
from segmed.metatensor import MetaTensor


def taken_image(image: Tensor, step: object) -> MetaTensor:
    """Return an image as a MetaTensor; an array or tensor without an affine has voxels of 1 mm.

    Args:
        image: `[C, *spatial]`, 2 or 3 spatial axes.
        step: The transform, for the message.

    Raises:
        UsageError: It is no array, has complex numbers, another number of axes, such as a batch, or
            no voxel.
    """
    try:
        taken = image if isinstance(image, MetaTensor) else MetaTensor(torch.as_tensor(image))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{type(step).__name__} takes an image as a tensor or an array of numbers, got a "
            f"{type(image).__name__}"
        ) from error
    if taken.is_complex():
        raise UsageError(
            f"{type(step).__name__} takes an image of real numbers, got {taken.dtype}: give its "
            "absolute value"
        )
    shape = tuple(int(edge) for edge in taken.shape)
    if len(shape) not in (3, 4):
        hint = "; of a batch give one image at a time" if len(shape) > 4 else ""
        raise UsageError(
            f"{type(step).__name__} takes an image [C, *spatial] of 2 or 3 axes, got {shape}{hint}"
        )
    if 0 in shape:
        raise UsageError(f"{type(step).__name__} takes an image with voxels, got the shape {shape}")
    return taken
