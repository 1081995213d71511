"""Intensities: brought to a common scale according to the plan, and cleared of MR bias fields."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segmed.errors import UsageError
from segmed.plan.schema import Intensity

CONSTANT_STD = 1e-8
"""An image of a smaller standard deviation counts as constant and becomes 0."""

BIAS_SHRINK = 4
"""Factor by which N4 coarsens an image before it fits the bias field."""


@dataclass(frozen=True)
class Scaling:
    """One channel's way to the common scale: clip, then `(x - shift) / divisor`.

    Scaling and resampling commute, so it is applied after resampling, on fewer voxels; but clips,
    and zeros that shall stay zeros, come before.

    Attributes:
        low: Lower clip, in the image's own units.
        high: Upper clip, in the image's own units.
        shift: What becomes 0.
        divisor: What becomes 1 above it; infinite for a constant image.
        keeps_zeros: Whether zeros stay 0 instead of becoming `-shift / divisor`.
    """

    low: float | None
    high: float | None
    shift: float
    divisor: float
    keeps_zeros: bool = False

    def before(self, channel: Tensor) -> Tensor:
        """The channel as it goes into resampling."""
        clipped = clip(channel, self.low, self.high)
        if not self.keeps_zeros:
            return clipped
        return ((clipped - self.shift) / self.divisor).masked_fill_(channel == 0, 0.0)

    def after(self, channel: Tensor) -> Tensor:
        """The resampled channel on the common scale; `channel` itself is changed."""
        return channel if self.keeps_zeros else channel.sub_(self.shift).div_(self.divisor)


def scaling_of(channel: Tensor, rule: Intensity) -> Scaling:
    """Return the scaling of one channel of one image.

    Args:
        channel: Voxels of one channel, in the image's own units.
        rule: The plan's; `low` and `high`, where given, clip first. Under `zscore` with `nonzero`,
            zeros stay 0. Under `unit`, missing ends are the image's own.

    Raises:
        UsageError: The scheme is `ct` and the rule has no mean or no standard deviation.
    """
    low, high = rule.low, rule.high
    if rule.scheme == "ct":
        if rule.mean is None or rule.std is None:
            raise UsageError("intensity scheme 'ct' has no mean or std: make the plan again")
        return Scaling(low, high, rule.mean, rule.std)
    if rule.scheme == "unit":
        bottom = float(channel.min()) if low is None else low
        top = float(channel.max()) if high is None else high
        return Scaling(low, high, bottom, top - bottom if top > bottom else math.inf)
    counted = channel[channel != 0] if rule.nonzero else channel
    if counted.numel() == 0:
        return Scaling(low, high, 0.0, math.inf, rule.nonzero)
    std, mean = (float(one) for one in torch.std_mean(clip(counted, low, high), correction=0))
    return Scaling(low, high, mean, std if std >= CONSTANT_STD else math.inf, rule.nonzero)


def clip(channel: Tensor, low: float | None, high: float | None) -> Tensor:
    """The channel between two ends, either of which may be missing."""
    return channel if low is None and high is None else channel.clamp(low, high)


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
