"""Atrous spatial pyramid pooling, and rates that fit a feature map.

Chen et al. 2017, arXiv 1706.05587, section 3.3 and figure 5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from segmed.models.blocks import (
    ConvUnit,
    concat,
    make_activation,
    make_norm,
    pointwise,
)
from segmed.models.encoders.separable import separable_conv
from segmed.models.options import Axes, ConvStyle

PAPER_FEATURE_SIZE = 33
"""Side of the feature map that the paper's rates were made for: 513 at output stride 16."""


class ASPP(nn.Module):
    """Parallel convolutions at several rates, and image pooling.

    Args:
        in_channels: Features before.
        width: Features of each branch and of the result.
        kernel: Kernel of the atrous branches, per axis.
        rates: One tuple a branch.
        style: Norm and activation.
        is_separable: Make the atrous branches depthwise separable.
        dropout: Probability of zeroing a feature of the result.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        kernel: Axes,
        rates: Sequence[Axes],
        style: ConvStyle,
        is_separable: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        dims = len(kernel)
        unit = partial(ConvUnit, dims, style=style)
        one = (1,) * dims
        atrous: Callable[..., nn.Module] = partial(unit, in_channels, width, kernel=kernel)
        if is_separable:
            atrous = partial(separable_conv, in_channels, width, kernel=kernel, style=style)
        self.branches = nn.ModuleList(
            [
                unit(in_channels, width, kernel=one),
                *(atrous(dilation=tuple(rate)) for rate in rates),
            ]
        )
        self.image_pool = nn.Sequential(
            pointwise(dims, in_channels, width, bias=style.norm is None),
            make_norm(None if style.norm is None else "group", dims, width),
            make_activation(style.activation or "relu"),
        )
        self.project = unit(width * (len(rates) + 2), width, kernel=one)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """The fused pyramid.

        Args:
            x: `[B, C, *spatial]`.

        Returns:
            `[B, width, *spatial]`.
        """
        pooled = self.image_pool(x.mean(dim=tuple(range(2, x.ndim)), keepdim=True))
        maps = [branch(x) for branch in self.branches]
        maps.append(pooled.expand_as(maps[0]))
        fused: Tensor = self.drop(self.project(concat(maps)))
        return fused


def dead_rates(rates: Sequence[Axes], feature_size: Sequence[int]) -> tuple[Axes, ...]:
    """Rates whose outer taps never fall on the feature map.

    Args:
        rates: One tuple a branch.
        feature_size: Of the map, per axis.

    Returns:
        Those that are as long as the map or longer along an axis, rate 1 excepted.
    """
    return tuple(
        rate
        for rate in rates
        if any(step > 1 and step >= n for step, n in zip(rate, feature_size, strict=True))
    )


def scale_rates(
    rates: Sequence[int], feature_size: Sequence[int], spacing_mm: Sequence[float]
) -> tuple[Axes, ...]:
    """The paper's rates for a smaller, perhaps anisotropic feature map.

    They keep their proportion to the longest axis, become shorter along coarser axes, and stay
    within the map.

    Args:
        rates: Made for a map of `PAPER_FEATURE_SIZE`.
        feature_size: Of the map, per axis.
        spacing_mm: Distance of its voxels, per axis, in mm.

    Returns:
        One tuple a rate.
    """
    factor = max(feature_size) / PAPER_FEATURE_SIZE
    finest = min(spacing_mm)
    return tuple(
        tuple(
            max(1, min(n - 1, round(rate * factor * finest / edge)))
            for n, edge in zip(feature_size, spacing_mm, strict=True)
        )
        for rate in rates
    )
