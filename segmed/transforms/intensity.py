"""Intensities of each channel on a common scale, in two steps around the resampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segmed.errors import ImageError, UsageError
from segmed.metatensor import MetaTensor, Transform
from segmed.one_line import OneLine
from segmed.plan.schema import Intensity
from segmed.transforms.taken import taken_image

CONSTANT_STD = 1e-8
"""An image of a smaller standard deviation counts as constant and becomes 0."""

NOTED = "intensity"
"""Key of the metadata below which `ClipChannels` notes what `ScaleChannels` applies."""


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

    @property
    def changes_before(self) -> bool:
        """Return whether `before` changes the channel."""
        return self.keeps_zeros or self.low is not None or self.high is not None

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
    if rule.scheme == "none":
        return Scaling(low, high, 0.0, 1.0)
    if rule.scheme == "ct":
        mean, std = ct_numbers(rule)
        return Scaling(low, high, mean, std)
    if rule.scheme == "unit":
        bottom = float(channel.min()) if low is None else low
        top = float(channel.max()) if high is None else high
        return Scaling(low, high, bottom, top - bottom if top > bottom else math.inf)
    counted = channel[channel != 0] if rule.nonzero else channel
    if counted.numel() == 0:
        return Scaling(low, high, 0.0, math.inf, rule.nonzero)
    mean, std = mean_and_std(clip(counted, low, high))
    return Scaling(low, high, mean, std if std >= CONSTANT_STD else math.inf, rule.nonzero)


def mean_and_std(voxels: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of voxels, in any memory layout.

    `torch.std_mean` takes five times as long as both apart; `torch.mean` of a crop, summed in
    float32, is off in the sixth digit: lines are averaged first, and their means in float64.

    Args:
        voxels: `[1, *spatial]` or `[N]`, float32, at least one.
    """
    lines = voxels.mean(dim=1) if voxels.ndim > 1 else voxels.mean()
    return float(lines.mean(dtype=torch.float64)), float(voxels.std(correction=0))


def ct_numbers(rule: Intensity) -> tuple[float, float]:
    """Mean and standard deviation of a rule of scheme `ct`.

    Raises:
        UsageError: The rule lacks one of them.
    """
    if rule.mean is None or rule.std is None:
        raise UsageError("intensity scheme 'ct' has no mean or std: make the plan again")
    return rule.mean, rule.std


def clip(channel: Tensor, low: float | None, high: float | None) -> Tensor:
    """The channel between two ends, either of which may be missing."""
    return channel if low is None and high is None else channel.clamp(low, high)


class ClipChannels(OneLine, Transform):
    """Clip each channel by its rule, measure it, and note the scaling in the metadata.

    Scaling and resampling commute, so `ScaleChannels` scales after resampling, on fewer voxels.
    Where zeros shall stay zeros, the channel is scaled here.

    Args:
        rules: One a channel.
    """

    def __init__(self, rules: Sequence[Intensity]) -> None:
        self.rules = tuple(rules)

    def __call__(self, image: Tensor) -> MetaTensor:
        """Return the clipped image, in the memory layout of `image`, of which it may be a view.

        Args:
            image: `[C, *spatial]` in the image's own units.

        Raises:
            ImageError: It has another number of channels than there are rules (`channels`).
            UsageError: A rule has no numbers, or the shape is not that of an image.
        """
        taken = taken_image(image, self)
        voxels = taken.as_tensor().to(torch.float32)
        require_rules(voxels, self.rules)
        scalings = [scaling_of(voxels[n : n + 1], rule) for n, rule in enumerate(self.rules)]
        if len(scalings) == 1:
            voxels = scalings[0].before(voxels)  # one pass over the image less
        elif any(one.changes_before for one in scalings):
            clipped = torch.empty_like(voxels)
            for number, scaling in enumerate(scalings):
                clipped[number] = scaling.before(voxels[number])
            voxels = clipped
        noted = [[one.shift, one.divisor, float(one.keeps_zeros)] for one in scalings]
        return with_voxels(taken, voxels, {NOTED: noted})


class ScaleChannels(OneLine, Transform):
    """Scale each channel as `ClipChannels` noted; otherwise clip, measure and scale it here.

    Args:
        rules: One a channel.
        in_place: Scale the memory of the image itself, where an earlier step of the chain made it.
    """

    def __init__(self, rules: Sequence[Intensity], *, in_place: bool = False) -> None:
        self.rules = tuple(rules)
        self.in_place = in_place

    def __call__(self, image: Tensor) -> MetaTensor:
        """Return the image on the common scale.

        Args:
            image: `[C, *spatial]`.

        Raises:
            ImageError: It has another number of channels than there are rules (`channels`).
            UsageError: A rule has no numbers, or the shape is not that of an image.
        """
        taken = taken_image(image, self)
        if NOTED not in taken.meta:
            return ScaleChannels(self.rules)(ClipChannels(self.rules)(taken))
        voxels = taken.as_tensor()
        require_rules(voxels, self.rules)
        voxels = voxels if self.in_place else voxels.clone()
        for channel, (shift, divisor, keeps) in zip(voxels, taken.meta[NOTED], strict=True):
            Scaling(None, None, float(shift), float(divisor), bool(keeps)).after(channel)
        return with_voxels(taken, voxels, {NOTED: None})


def require_rules(voxels: Tensor, rules: Sequence[Intensity]) -> None:
    """Check that there is one rule a channel.

    Raises:
        ImageError: `channels`.
    """
    if len(voxels) != len(rules):
        raise ImageError(
            f"the image has {len(voxels)} channels, the intensity rules are for {len(rules)}: give "
            "one rule a channel",
            reason="channels",
        )


def with_voxels(
    image: MetaTensor, voxels: Tensor, changes: dict[str, object] | None = None
) -> MetaTensor:
    """Return other voxels with the metadata and operations of an image.

    Args:
        image: An image.
        voxels: Voxels on its grid.
        changes: Entries of the metadata to set, or to remove where None.
    """
    meta = {**image.meta, **(changes or {})}
    kept = {key: value for key, value in meta.items() if value is not None and key != "affine"}
    return MetaTensor(
        voxels,
        affine=image.affine,
        meta=kept,
        applied_operations=list(image.applied_operations),
    )
