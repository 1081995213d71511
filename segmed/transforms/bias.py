"""MR images without their bias field."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segmed.errors import UsageError
from segmed.metatensor import MetaTensor, Transform
from segmed.one_line import OneLine
from segmed.transforms.intensity import with_voxels
from segmed.transforms.taken import taken_image

BIAS_SHRINK = 4
"""Factor by which N4 coarsens an image before it fits the bias field."""


class CorrectBias(OneLine, Transform):
    """Remove the bias field of MR channels by N4.

    Args:
        channels: Whether each channel has one; every channel if not given.
    """

    def __init__(self, channels: Sequence[bool] | None = None) -> None:
        self.channels = None if channels is None else tuple(channels)

    def __call__(self, image: Tensor) -> MetaTensor:
        """Return the corrected image, float32.

        Args:
            image: `[C, *spatial]`, 2 or 3 axes, in the image's own units.

        Raises:
            UsageError: The shape is not that of an image, or there are other channels than flags.
        """
        taken = taken_image(image, self)
        voxels = taken.as_tensor().to(torch.float32)
        flags = (True,) * len(voxels) if self.channels is None else self.channels
        if len(flags) != len(voxels):
            raise UsageError(
                f"CorrectBias has {len(flags)} flags, the image {len(voxels)} channels: give one "
                "flag a channel"
            )
        corrected = [
            correct_bias(channel) if has_bias else channel
            for channel, has_bias in zip(voxels, flags, strict=True)
        ]
        return with_voxels(taken, torch.stack(corrected))


def correct_bias(channel: Tensor) -> Tensor:
    """One MR channel without its bias field, fitted over the voxels that Otsu calls foreground.

    Args:
        channel: `[*spatial]`, 2 or 3 axes, in the image's own units.

    Returns:
        float32 of the same shape; a constant image comes back as it is.

    Source:
        Tustison et al. 2010, IEEE TMI 29(6), as SimpleITK implements it.
    """
    import SimpleITK as sitk  # noqa: N813, PLC0415 - its documented name; few plans need it

    voxels = np.ascontiguousarray(channel.numpy(), dtype=np.float32)
    if float(voxels.min()) == float(voxels.max()):
        return channel
    image = sitk.GetImageFromArray(voxels)
    mask = sitk.OtsuThreshold(image, 0, 1, 200)
    factors = [max(1, min(BIAS_SHRINK, size // 8)) for size in image.GetSize()]
    fit = sitk.N4BiasFieldCorrectionImageFilter()
    fit.SetNumberOfThreads(1)
    fit.SetMaximumNumberOfIterations([30, 30, 20])
    fit.Execute(sitk.Shrink(image, factors), sitk.Shrink(mask, factors))
    field = sitk.GetArrayFromImage(fit.GetLogBiasFieldAsImage(image))
    return torch.from_numpy(voxels / np.exp(field).astype(np.float32))
