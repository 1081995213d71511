"""Intensities: brought to a common scale as the plan says, and cleared of MR bias fields."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its documented name
import torch
from torch import Tensor

from segmed.errors import UsageError
from segmed.plan.schema import Intensity

CONSTANT_STD = 1e-8
"""An image of a smaller standard deviation counts as constant and becomes 0."""

BIAS_SHRINK = 4
"""Factor by which N4 coarsens an image before it fits the bias field."""


def scale_intensity(channel: Tensor, rule: Intensity) -> Tensor:
    """One channel on the plan's scale.

    Args:
        channel: Voxels of one channel, `[*spatial]`, in the image's own units.
        rule: How to scale; `low` and `high`, where given, clip first. Under `zscore` with
            `nonzero`, zeros stay 0. Under `unit`, missing ends are the image's own.

    Returns:
        float32 of the same shape; 0 everywhere for a constant image.

    Raises:
        UsageError: The scheme is `ct` and the rule has no mean or no standard deviation.
    """
    voxels = channel.to(torch.float32)
    outside = voxels == 0 if rule.nonzero else None
    if rule.low is not None or rule.high is not None:
        voxels = voxels.clamp(rule.low, rule.high)
    if rule.scheme == "ct":
        if rule.mean is None or rule.std is None:
            raise UsageError("intensity scheme 'ct' has no mean or std: make the plan again")
        return (voxels - rule.mean) / rule.std
    if rule.scheme == "unit":
        low = float(voxels.min()) if rule.low is None else rule.low
        high = float(voxels.max()) if rule.high is None else rule.high
        return (voxels - low) / max(high - low, CONSTANT_STD)
    counted = voxels if outside is None else voxels[~outside]
    if counted.numel() == 0:
        return torch.zeros_like(voxels)
    std, mean = torch.std_mean(counted.double(), correction=0)
    if float(std) < CONSTANT_STD:
        return torch.zeros_like(voxels)
    scaled = (voxels - float(mean)) / float(std)
    return scaled if outside is None else scaled.masked_fill(outside, 0.0)


def correct_bias(channel: Tensor) -> Tensor:
    """One MR channel without its bias field, fitted over the voxels that Otsu calls foreground.

    Args:
        channel: `[*spatial]`, 2 or 3 axes, in the image's own units.

    Returns:
        float32 of the same shape; a constant image comes back as it is.

    Source:
        Tustison et al. 2010, IEEE TMI 29(6), as SimpleITK implements it.
    """
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
