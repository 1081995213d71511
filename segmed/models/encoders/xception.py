"""Aligned Xception-65 (Chollet 2017; modified by Chen et al. 2018, arXiv 1802.02611, figure 4).

Entry flow of two convolutions and three residual modules of 128, 256 and 728 features; sixteen
modules of 728; exit flow of 728, 1024, 1024 and 1536, 1536, 2048. Every pooling is a separable
convolution with stride, every depthwise convolution has a batch norm. In 3D kernels are inflated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor, nn

from segmed.errors import ModelError
from segmed.models.blocks import CONV, ConvUnit, make_activation, make_norm
from segmed.models.encoders.separable import separable_conv
from segmed.models.options import Activation, Axes, ConvStyle


class ModulePlan(NamedTuple):
    """One residual module.

    Attributes:
        widths: Features of its three separable convolutions.
        stride: Step of the third.
        skip: A convolved shortcut, a plain one, or none.
        acts_inside: Activations are within the separable convolutions, not before them.
    """

    widths: tuple[int, int, int]
    stride: int
    skip: Literal["conv", "sum", "none"]
    acts_inside: bool = False


MODULES = (
    ModulePlan((128, 128, 128), 2, "conv"),
    ModulePlan((256, 256, 256), 2, "conv"),
    ModulePlan((728, 728, 728), 2, "conv"),
    *(ModulePlan((728, 728, 728), 1, "sum"),) * 16,
    ModulePlan((728, 1024, 1024), 2, "conv"),
    ModulePlan((1536, 1536, 2048), 1, "none", acts_inside=True),
)
"""Figure 4 of the paper."""

LOW_LEVEL_MODULE = 1
"""The module whose second convolution, still at stride 4, is the decoder's low-level map."""


class XceptionModule(nn.Module):
    """Three separable convolutions and a shortcut.

    Args:
        in_channels: Features before.
        plan: Its shape, with widths already scaled.
        stride: Step, 1 where the module is dilated instead.
        rate: Step between taps.
        style: Norm and activation.
        spatial_dims: 2 or 3.
    """

    def __init__(
        self,
        in_channels: int,
        plan: ModulePlan,
        *,
        stride: int,
        rate: int,
        style: ConvStyle,
        spatial_dims: int,
    ) -> None:
        super().__init__()
        activation: Activation = style.activation or "relu"
        inside = ConvStyle(style.norm, activation if plan.acts_inside else None)
        self.before = nn.ModuleList(
            nn.Identity() if plan.acts_inside else make_activation(activation, inplace=False)
            for _ in range(3)
        )
        self.convs = nn.ModuleList(
            separable_conv(
                width_in,
                width,
                kernel=(3,) * spatial_dims,
                dilation=(rate,) * spatial_dims,
                style=inside,
                stride=stride if index == 2 else 1,
            )
            for index, (width_in, width) in enumerate(
                zip((in_channels, *plan.widths), plan.widths, strict=False)
            )
        )
        self.skip: nn.Module | None = None
        if plan.skip == "sum":
            self.skip = nn.Identity()
        elif plan.skip == "conv":
            width = plan.widths[-1]
            self.skip = nn.Sequential(
                CONV[spatial_dims](in_channels, width, 1, stride=stride, bias=style.norm is None),
                make_norm(style.norm, spatial_dims, width),
            )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The module's output, and what its second convolution gave.

        Args:
            x: `[B, C, *spatial]`.

        Returns:
            `[B, widths[2], *spatial / stride]` and `[B, widths[1], *spatial]`.
        """
        shortcut = None if self.skip is None else self.skip(x)
        inner = x
        for index, (before, conv) in enumerate(zip(self.before, self.convs, strict=True)):
            inner = x if index == 2 else inner
            x = conv(before(x))
        return (x if shortcut is None else x + shortcut), inner


class XceptionEncoder(nn.Module):
    """Aligned Xception-65 without its classifier.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
        output_stride: 8, 16 or 32: modules that would go beyond are dilated.
        style: Norm and activation.
        width_factor: Factor on all widths.

    Attributes:
        channels: Features of each map that `forward` gives.
        strides: Distance of its voxels on the input grid, per axis.
        low_level: Index of the map that DeepLabv3+ decodes with.

    Raises:
        ModelError: The output stride is another.
    """

    low_level = 0

    def __init__(
        self,
        *,
        spatial_dims: int,
        in_channels: int,
        output_stride: int,
        style: ConvStyle,
        width_factor: float = 1.0,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ModelError(f"output_stride must be 8, 16 or 32, got {output_stride}")
        kernel = (3,) * spatial_dims
        stem = _scaled((32, 64), width_factor)
        self.stem = nn.Sequential(
            ConvUnit(spatial_dims, in_channels, stem[0], kernel=kernel, style=style, stride=2),
            ConvUnit(spatial_dims, stem[0], stem[1], kernel=kernel, style=style),
        )
        modules, before, stride, rate = [], stem[1], 2, 1
        for entry in MODULES:
            first, second, third = _scaled(entry.widths, width_factor)
            plan = entry._replace(widths=(first, second, third))
            is_dilated = stride * plan.stride > output_stride
            step = 1 if is_dilated else plan.stride
            modules.append(
                XceptionModule(
                    before, plan, stride=step, rate=rate, style=style, spatial_dims=spatial_dims
                )
            )
            before, stride = third, stride * step
            rate *= plan.stride if is_dilated else 1
        self.blocks = nn.ModuleList(modules)
        low = _scaled(MODULES[LOW_LEVEL_MODULE].widths, width_factor)[1]
        self.channels = (low, before)
        self.strides: tuple[Axes, ...] = ((4,) * spatial_dims, (stride,) * spatial_dims)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The low-level map and the deepest one.

        Args:
            image: `[B, in_channels, *spatial]`.

        Returns:
            Two maps, at stride 4 and at the output stride.
        """
        x = self.stem(image)
        low = x
        for index, block in enumerate(self.blocks):
            x, inner = block(x)
            if index == LOW_LEVEL_MODULE:
                low = inner
        return [low, x]


def _scaled(widths: Sequence[int], factor: float) -> tuple[int, ...]:
    return tuple(max(1, round(width * factor)) for width in widths)
