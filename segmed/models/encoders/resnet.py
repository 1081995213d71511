"""Residual networks (He et al. 2016, CVPR; arXiv 1512.03385), published and planned.

Table 1: ResNet-18 and 34 of basic blocks, 50 and 101 of bottlenecks, with the stride in the 3x3
convolution as torchvision has it. Layers are named as in torchvision's files. Atrous stages trade
their stride for dilation; the block that would have strided keeps the rate of the stage before
(Chen et al. 2017, arXiv 1706.05587, section 3.1).

In 3D kernels are inflated, and the stem strides on all axes, as in MedicalNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from segmed.errors import ModelError
from segmed.models.blocks import (
    CONV,
    MAX_POOL,
    ConvUnit,
    make_activation,
    make_norm,
    same_padding,
)
from segmed.models.options import Axes, ConvStyle, Level

STAGES: dict[str, tuple[bool, tuple[int, ...]]] = {
    "resnet18": (False, (2, 2, 2, 2)),
    "resnet34": (False, (3, 4, 6, 3)),
    "resnet50": (True, (3, 4, 6, 3)),
    "resnet101": (True, (3, 4, 23, 3)),
}
"""Whether blocks are bottlenecks, and blocks a stage."""

EXPANSION = 4
"""Features of a bottleneck's output over those of its 3x3 convolution."""

Shortcut = Literal["A", "B"]


class PadShortcut(nn.Module):
    """Shortcut A: take every n-th voxel and append channels of zeros; no parameters.

    Args:
        extra: Channels to append.
        stride: Step per axis.
    """

    def __init__(self, extra: int, stride: Axes) -> None:
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, x: Tensor) -> Tensor:
        """The shortened and widened map.

        Args:
            x: `[B, C, *spatial]`.

        Returns:
            `[B, C + extra, *spatial / stride]`.
        """
        x = x[(slice(None), slice(None), *(slice(None, None, step) for step in self.stride))]
        return F.pad(x, [0, 0] * len(self.stride) + [0, self.extra])


class ResidualBlock(nn.Module):
    """A basic block, or a bottleneck.

    Args:
        in_channels: Features before.
        planes: Features of the inner convolutions.
        kernel: Kernel per axis.
        stride: Step per axis.
        dilation: Step between taps, on all axes.
        style: Norm and activation.
        is_bottleneck: 1x1, 3x3, 1x1 with `EXPANSION` times as many features at the end.
        shortcut: `B` convolves where sizes change, `A` pads with zeros.
    """

    def __init__(
        self,
        in_channels: int,
        planes: int,
        *,
        kernel: Axes,
        stride: Axes,
        dilation: int,
        style: ConvStyle,
        is_bottleneck: bool = False,
        shortcut: Shortcut = "B",
    ) -> None:
        super().__init__()
        dims = len(kernel)
        norm = partial(make_norm, style.norm, dims)
        bias = style.norm is None
        conv = partial(CONV[dims], bias=bias)
        rates = (dilation,) * dims
        main = partial(conv, padding=same_padding(kernel, rates), dilation=rates)
        self.out_channels = planes * (EXPANSION if is_bottleneck else 1)
        if is_bottleneck:
            self.conv1 = conv(in_channels, planes, 1)
            self.conv2 = main(planes, planes, kernel, stride=stride)
            self.conv3 = conv(planes, self.out_channels, 1)
            self.bn3 = norm(self.out_channels)
        else:
            self.conv1 = main(in_channels, planes, kernel, stride=stride)
            self.conv2 = conv(planes, planes, kernel, padding=same_padding(kernel, (1,) * dims))
            if dilation > 1:
                self.conv2 = main(planes, planes, kernel)
        self.bn1, self.bn2 = norm(planes), norm(planes)
        self.act = make_activation(style.activation or "relu")
        self.is_bottleneck = is_bottleneck
        self.downsample: nn.Module | None = None
        if any(step != 1 for step in stride) or in_channels != self.out_channels:
            if shortcut == "A":
                self.downsample = PadShortcut(self.out_channels - in_channels, stride)
            else:
                self.downsample = nn.Sequential(
                    conv(in_channels, self.out_channels, 1, stride=stride), norm(self.out_channels)
                )

    def forward(self, x: Tensor) -> Tensor:
        """The residual sum.

        Args:
            x: `[B, C, *spatial]`.

        Returns:
            `[B, out_channels, *spatial / stride]`.
        """
        y = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        if self.is_bottleneck:
            y = self.bn3(self.conv3(self.act(y)))
        y = y + (x if self.downsample is None else self.downsample(x))
        out: Tensor = self.act(y)
        return out


class ResNetEncoder(nn.Module):
    """A published ResNet without its classifier.

    Args:
        name: A key of `STAGES`.
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
        output_stride: 8, 16 or 32: stages that would go beyond are dilated.
        style: Norm and activation.
        width_factor: Factor on all widths.
        shortcut: `B`, or `A` as in MedicalNet's 18 and 34.

    Attributes:
        channels: Features of each map that `forward` gives.
        strides: Distance of its voxels on the input grid, per axis.
        low_level: Index of the map that DeepLabv3+ decodes with.

    Raises:
        ModelError: The output stride is another.
    """

    low_level = 1

    def __init__(
        self,
        name: str,
        *,
        spatial_dims: int,
        in_channels: int,
        output_stride: int,
        style: ConvStyle,
        width_factor: float = 1.0,
        shortcut: Shortcut = "B",
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ModelError(f"output_stride must be 8, 16 or 32, got {output_stride}")
        is_bottleneck, counts = STAGES[name]
        planes = [max(1, round(width * width_factor)) for width in (64, 128, 256, 512)]
        self.conv1 = CONV[spatial_dims](
            in_channels, planes[0], 7, stride=2, padding=3, bias=style.norm is None
        )
        self.bn1 = make_norm(style.norm, spatial_dims, planes[0])
        self.act = make_activation(style.activation or "relu")
        self.maxpool = MAX_POOL[spatial_dims](3, stride=2, padding=1)
        before, stride, rate = planes[0], 4, 1
        channels, strides, stages = [before], [2], []
        for index, (width, count) in enumerate(zip(planes, counts, strict=True)):
            step, first_rate = (1 if index == 0 else 2), rate
            if stride * step > output_stride:
                step, rate = 1, rate * step
            stride *= step
            blocks = []
            for number in range(count):
                block = ResidualBlock(
                    before,
                    width,
                    kernel=(3,) * spatial_dims,
                    stride=(step if number == 0 else 1,) * spatial_dims,
                    dilation=first_rate if number == 0 else rate,
                    style=style,
                    is_bottleneck=is_bottleneck,
                    shortcut=shortcut,
                )
                before = block.out_channels
                blocks.append(block)
            stages.append(nn.Sequential(*blocks))
            channels.append(before)
            strides.append(stride)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.channels = tuple(channels)
        self.strides: tuple[Axes, ...] = tuple((n,) * spatial_dims for n in strides)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The stem's map and those of the four stages.

        Args:
            image: `[B, in_channels, *spatial]`.

        Returns:
            Five maps, finest first.
        """
        maps = [self.act(self.bn1(self.conv1(image)))]
        x = self.maxpool(maps[0])
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps


class PlannedResidualEncoder(nn.Module):
    """A residual encoder with the levels of a plan: one convolution, then basic blocks.

    Args:
        in_channels: Channels of the image.
        levels: Levels, finest first.
        dilated_levels: How many of the deepest trade their stride for dilation.
        blocks: Residual blocks a level, from the second on.
        style: Norm and activation.

    Attributes:
        channels: Features of each map that `forward` gives.
        strides: Distance of its voxels on the input grid, per axis.
        low_level: Index of the map that DeepLabv3+ decodes with: stride 4 where six levels or more
            make that fine, else the second level.
    """

    def __init__(
        self,
        in_channels: int,
        levels: Sequence[Level],
        *,
        dilated_levels: int,
        blocks: int,
        style: ConvStyle,
    ) -> None:
        super().__init__()
        dims, depth = len(levels[0].stride), len(levels)
        self.stem = ConvUnit(
            dims, in_channels, levels[0].width, kernel=levels[0].kernel, style=style
        )
        stages, stride, rate = [], (1,) * dims, 1
        strides = [stride]
        for index, level in enumerate(levels[1:], start=1):
            is_dilated = index >= depth - dilated_levels
            first_rate = rate
            step = (1,) * dims if is_dilated else level.stride
            if is_dilated:
                rate *= max(level.stride)
            stages.append(
                nn.Sequential(
                    *(
                        ResidualBlock(
                            levels[index - 1].width if number == 0 else level.width,
                            level.width,
                            kernel=level.kernel,
                            stride=step if number == 0 else (1,) * dims,
                            dilation=first_rate if number == 0 else rate,
                            style=style,
                        )
                        for number in range(blocks)
                    )
                )
            )
            stride = tuple(have * n for have, n in zip(stride, step, strict=True))
            strides.append(stride)
        self.stages = nn.ModuleList(stages)
        self.channels = tuple(level.width for level in levels)
        self.strides: tuple[Axes, ...] = tuple(strides)
        self.low_level = 2 if depth >= 6 else min(1, depth - 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        """One map a level.

        Args:
            image: `[B, in_channels, *spatial]`.

        Returns:
            The maps, finest first.
        """
        maps: list[Tensor] = [self.stem(image)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps
