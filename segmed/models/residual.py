"""Residual encoder of the U-Net family, as in nnU-Net's ResEnc (Isensee et al. 2024, MICCAI).

arXiv 2404.09556. One convolution, then stages of residual blocks: convolution, norm, activation,
convolution, norm; the sum with the skip; activation. The first block of a stage strides in its
first convolution; its skip is pooled by averages and, where the width changes, goes through a 1x1
convolution and norm (ResNet-D: He et al. 2019, CVPR; arXiv 1812.01187, figure 2c).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from segmed.errors import ModelError
from segmed.models.blocks import (
    ConvUnit,
    double_conv,
    make_activation,
    make_pools,
    split_in_blocks,
)
from segmed.models.options import Axes, ConvStyle, Level, LevelOptions


@dataclass(frozen=True, kw_only=True)
class FamilyOptions(LevelOptions):
    """Options that U-Net, U-Net++ and UNet 3+ share.

    Attributes:
        residual_blocks: Residual blocks of each level of the encoder, finest first; None for two
            plain convolutions a level.
    """

    residual_blocks: Sequence[int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.residual_blocks is not None and min(self.residual_blocks, default=0) < 1:
            raise ModelError(
                f"residual_blocks must be 1 or more for each level, got {self.residual_blocks}"
            )

    def levels(self, spatial_dims: int) -> tuple[Level, ...]:
        """The levels, finest first; see `LevelOptions.levels`."""
        levels = super().levels(spatial_dims)
        if self.residual_blocks is not None and len(self.residual_blocks) != len(levels):
            raise ModelError(
                f"residual_blocks needs one entry a level, got {len(self.residual_blocks)} for "
                f"{len(levels)} levels"
            )
        return levels


@dataclass(frozen=True, kw_only=True)
class DenseOptions(FamilyOptions):
    """Options that U-Net++ and UNet 3+ share, whose decoders join many maps.

    Attributes:
        recompute: Training keeps only the result of each decoder node or stage, and computes the
            maps within it again for the gradient: about a third less memory of a step, for one more
            forward pass of the decoder.
    """

    recompute: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recompute and (self.norm == "batch" or self.dropout > 0):
            raise ModelError(
                "recompute=True computes maps twice, and batch norm and dropout would differ: give "
                "norm='instance' or 'group' and dropout=0"
            )


class VolumeAveragePool(nn.AvgPool3d):
    """Average-pooling of volumes that has a deterministic gradient on a GPU, unlike PyTorch's."""

    def forward(self, volume: Tensor) -> Tensor:
        """Pooled volume `[B, C, *spatial]`."""
        if volume.is_cuda and torch.are_deterministic_algorithms_enabled():
            return split_in_blocks(volume, tuple(self.kernel_size)).mean(dim=(3, 5, 7))  # type: ignore[arg-type]  # built with a tuple
        pooled: Tensor = super().forward(volume)
        return pooled


AVERAGE_POOL: dict[int, Callable[..., nn.Module]] = {2: nn.AvgPool2d, 3: VolumeAveragePool}


class ResidualUnit(nn.Module):
    """One residual block with a pooled skip.

    Args:
        in_channels: Features before.
        out_channels: Features after.
        kernel: Kernel per axis.
        stride: Step per axis, which divides the size of the input.
        style: Norm, activation and bias.
        dropout: Probability of zeroing a feature after the first convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: Axes,
        stride: Axes,
        style: ConvStyle,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        dims, linear = len(kernel), replace(style, activation=None)
        self.conv1 = ConvUnit(
            dims, in_channels, out_channels, kernel=kernel, stride=stride, style=style
        )
        self.drop = nn.Dropout(dropout)
        self.conv2 = ConvUnit(dims, out_channels, out_channels, kernel=kernel, style=linear)
        skip: list[nn.Module] = []
        if any(step != 1 for step in stride):
            skip.append(AVERAGE_POOL[dims](stride, stride))
        if in_channels != out_channels:
            skip.append(
                ConvUnit(
                    dims,
                    in_channels,
                    out_channels,
                    kernel=(1,) * dims,
                    style=replace(linear, bias=style.norm is None),
                )
            )
        self.skip = nn.Sequential(*skip)
        self.act = make_activation(style.activation or "relu")

    def forward(self, x: Tensor) -> Tensor:
        """The residual sum.

        Args:
            x: `[B, in_channels, *spatial]`.

        Returns:
            `[B, out_channels, *spatial / stride]`.
        """
        out: Tensor = self.act(self.conv2(self.drop(self.conv1(x))) + self.skip(x))
        return out


def encoder_level(
    in_channels: int,
    level: Level,
    options: FamilyOptions,
    *,
    index: int,
    padding: Axes | None = None,
    dropout: float = 0.0,
) -> nn.Sequential:
    """One level of an encoder: two plain convolutions, or residual blocks.

    Args:
        in_channels: Features of the level above, or channels of the image.
        level: Gives width, kernel and stride.
        options: Give style and residual blocks.
        index: Number of the level; the first begins with a convolution of its own.
        padding: Zeros on either side of plain convolutions; None keeps the size.
        dropout: Probability of zeroing a feature.

    Returns:
        The level; its pooling is among `encoder_pools`.
    """
    dims, style = len(level.stride), options.style
    if options.residual_blocks is None:
        return double_conv(dims, in_channels, level, style=style, padding=padding, dropout=dropout)
    layers: list[nn.Module] = []
    if index == 0:
        layers.append(ConvUnit(dims, in_channels, level.width, kernel=level.kernel, style=style))
        in_channels = level.width
    for number in range(options.residual_blocks[index]):
        layers.append(
            ResidualUnit(
                in_channels if number == 0 else level.width,
                level.width,
                kernel=level.kernel,
                stride=level.stride if number == 0 else (1,) * dims,
                style=style,
                dropout=dropout,
            )
        )
    return nn.Sequential(*layers)


def encoder_pools(levels: Sequence[Level], options: FamilyOptions) -> nn.ModuleList:
    """Max-pooling into every level but the first; residual levels stride by themselves.

    Args:
        levels: Levels, finest first.
        options: Give the residual blocks.
    """
    if options.residual_blocks is None:
        return make_pools(levels)
    return nn.ModuleList(nn.Identity() for _ in levels[1:])
