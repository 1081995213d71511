"""nnU-Net's networks, for weights trained by it: plain and residual-encoder U-Nets.

The plain form is a U-Net whose encoder reduces resolution by strided convolutions. The residual
form has a stem of one convolution and residual blocks in its encoder (convolution, norm,
activation, convolution, norm; the input is added, pooled and projected where its shape changes;
activation). Both decoders enlarge by transposed convolutions with the kernel of their stride, join
with the encoder's map and convolve; every decoder stage has a head, the last one gives the logits.

Modules are named as in nnU-Net's checkpoints, so that its weights are taken as they are. It is no
architecture that `segmed plan` offers: packages made by `segmed model import-nnunet` have it.

Source:
    Isensee et al. 2021, Nature Methods 18 (plain); Isensee et al. 2024, MICCAI, arXiv 2404.09556
    (residual encoder). Shapes and names were checked against dynamic_network_architectures 0.4.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from segmed.errors import ModelError
from segmed.models.blocks import CONV, DECONV, check_input, initialise_he
from segmed.models.options import Architecture, Axes, Task, check_choice, per_axis
from segmed.models.resize import crop_to, pad_to_multiple

NAME = "nnunet"

_NORM: dict[tuple[str, int], type[nn.Module]] = {
    ("instance", 2): nn.InstanceNorm2d,
    ("instance", 3): nn.InstanceNorm3d,
    ("batch", 2): nn.BatchNorm2d,
    ("batch", 3): nn.BatchNorm3d,
}
_POOL: dict[int, type[nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


@dataclass(frozen=True, kw_only=True)
class NnUNetOptions:
    """Options of an nnU-Net network; sequences run from the finest stage down.

    Attributes:
        encoder: `plain` convolutions or `residual` blocks.
        widths: Features of each stage.
        kernels: Kernel of each stage's convolutions, one number or one per axis; odd.
        strides: Step from the stage above, one number or one per axis.
        blocks: Convolutions (`plain`) or residual blocks of each encoder stage.
        decoder_convs: Convolutions of each decoder stage, in the order of computation.
        stem_width: Features of the residual encoder's stem; None for those of the finest stage.
        conv_bias: Bias of the convolutions.
        norm: Normalisation after each convolution; None for none.
        norm_eps: Added to the variance.
        norm_affine: Whether the norm has a scale and a shift.
        activation: Non-linearity.
        slope: Of the leaky ReLU for negative values.
        activation_first: Activation before the norm instead of after it (`plain` only).
    """

    encoder: Literal["plain", "residual"] = "plain"
    widths: Sequence[int] = (32, 64, 128, 256, 320, 320)
    kernels: Sequence[int | Sequence[int]] = (3,) * 6
    strides: Sequence[int | Sequence[int]] = (1, 2, 2, 2, 2, 2)
    blocks: Sequence[int] = (2,) * 6
    decoder_convs: Sequence[int] = (2,) * 5
    stem_width: int | None = None
    conv_bias: bool = True
    norm: Literal["instance", "batch"] | None = "instance"
    norm_eps: float = 1e-5
    norm_affine: bool = True
    activation: Literal["leaky_relu", "relu"] = "leaky_relu"
    slope: float = 0.01
    activation_first: bool = False

    def __post_init__(self) -> None:
        check_choice("encoder", self.encoder, ("plain", "residual"))
        check_choice("norm", self.norm, ("instance", "batch", None))
        check_choice("activation", self.activation, ("leaky_relu", "relu"))
        count = len(self.widths)
        lengths = {
            "kernels": (len(self.kernels), count),
            "strides": (len(self.strides), count),
            "blocks": (len(self.blocks), count),
            "decoder_convs": (len(self.decoder_convs), count - 1),
        }
        for name, (found, needed) in lengths.items():
            if found != needed:
                raise ModelError(f"{count} stages need {needed} {name}, got {found}")
        if min(*self.widths, *self.blocks, *(self.decoder_convs or (1,))) < 1:
            raise ModelError("widths, blocks and decoder_convs must be positive")


class _ConvUnit(nn.Module):
    """Convolution, norm and activation, in either order of the last two.

    Args:
        before: Features before.
        after: Features after.
        kernel: Per axis.
        stride: Per axis.
        options: Norm and activation.
        is_active: Whether an activation follows.
        bias: Bias of the convolution.
    """

    def __init__(
        self,
        before: int,
        after: int,
        kernel: Axes,
        stride: Axes,
        options: NnUNetOptions,
        *,
        is_active: bool = True,
        bias: bool,
    ) -> None:
        super().__init__()
        dims = len(kernel)
        padding = tuple((edge - 1) // 2 for edge in kernel)
        self.conv = CONV[dims](before, after, kernel, stride=stride, padding=padding, bias=bias)
        layers: list[nn.Module] = []
        if options.norm is not None:
            make = _NORM[options.norm, dims]
            self.norm = make(after, eps=options.norm_eps, affine=options.norm_affine)
            layers.append(self.norm)
        if is_active:
            layers.append(_activation(options))
        if options.activation_first and is_active and options.norm is not None:
            layers.reverse()
        self._after = tuple(layers)  # a tuple: the norm is registered once, under its own name

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        for layer in self._after:
            x = layer(x)
        return x


class _Convs(nn.Module):
    """Convolutions one after the other; the first one takes the stride."""

    def __init__(
        self,
        before: int,
        after: int,
        kernel: Axes,
        stride: Axes,
        count: int,
        options: NnUNetOptions,
    ) -> None:
        super().__init__()
        still = (1,) * len(kernel)
        self.convs = nn.Sequential(
            *(
                _ConvUnit(
                    before if index == 0 else after,
                    after,
                    kernel,
                    stride if index == 0 else still,
                    options,
                    bias=options.conv_bias,
                )
                for index in range(count)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.convs(x)
        return found


class _ResidualBlock(nn.Module):
    """Two convolutions beside a skip, added before the last activation."""

    def __init__(
        self, before: int, after: int, kernel: Axes, stride: Axes, options: NnUNetOptions
    ) -> None:
        super().__init__()
        still = (1,) * len(kernel)
        bias = options.conv_bias
        self.conv1 = _ConvUnit(before, after, kernel, stride, options, bias=bias)
        self.conv2 = _ConvUnit(after, after, kernel, still, options, is_active=False, bias=bias)
        self.nonlin2 = _activation(options)
        skip: list[nn.Module] = []
        if max(stride) > 1:
            skip.append(_POOL[len(kernel)](stride, stride))
        if before != after:
            skip.append(
                _ConvUnit(before, after, still, still, options, is_active=False, bias=False)
            )
        self.skip = nn.Sequential(*skip)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.nonlin2(self.conv2(self.conv1(x)) + self.skip(x))
        return found


class _ResidualStage(nn.Module):
    """Residual blocks one after the other; the first one takes the stride."""

    def __init__(
        self,
        before: int,
        after: int,
        kernel: Axes,
        stride: Axes,
        count: int,
        options: NnUNetOptions,
    ) -> None:
        super().__init__()
        still = (1,) * len(kernel)
        self.blocks = nn.Sequential(
            _ResidualBlock(before, after, kernel, stride, options),
            *(_ResidualBlock(after, after, kernel, still, options) for _ in range(count - 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.blocks(x)
        return found


class _Encoder(nn.Module):
    def __init__(self, task: Task, options: NnUNetOptions, stages: Sequence[_Stage]) -> None:
        super().__init__()
        before = task.in_channels
        still = (1,) * task.spatial_dims
        if options.encoder == "residual":
            width = options.stem_width or options.widths[0]
            self.stem = _Convs(before, width, stages[0].kernel, still, 1, options)
            before = width
        built: list[nn.Module] = []
        for stage, count in zip(stages, options.blocks, strict=True):
            shape = (before, stage.width, stage.kernel, stage.stride, count, options)
            if options.encoder == "residual":
                built.append(_ResidualStage(*shape))
            else:
                built.append(nn.Sequential(_Convs(*shape)))
            before = stage.width
        self.stages = nn.Sequential(*built)

    def forward(self, x: Tensor) -> list[Tensor]:
        if hasattr(self, "stem"):
            x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class _Decoder(nn.Module):
    def __init__(self, task: Task, options: NnUNetOptions, stages: Sequence[_Stage]) -> None:
        super().__init__()
        dims = task.spatial_dims
        still = (1,) * dims
        ups, convs, heads = [], [], []
        for below, stage, count in zip(
            reversed(stages[1:]), reversed(stages[:-1]), options.decoder_convs, strict=True
        ):
            ups.append(
                DECONV[dims](
                    below.width,
                    stage.width,
                    below.stride,
                    stride=below.stride,
                    bias=options.conv_bias,
                )
            )
            convs.append(_Convs(2 * stage.width, stage.width, stage.kernel, still, count, options))
            heads.append(CONV[dims](stage.width, task.num_classes, 1))
        self.transpconvs = nn.ModuleList(ups)
        self.stages = nn.ModuleList(convs)
        self.seg_layers = nn.ModuleList(heads)

    def forward(self, maps: list[Tensor], num_heads: int) -> list[Tensor]:
        """Logits of the finest stages, finest first."""
        x = maps[-1]
        logits: list[Tensor] = []
        for index, (up, convs) in enumerate(zip(self.transpconvs, self.stages, strict=True)):
            x = convs(torch.cat([up(x), maps[-(index + 2)]], dim=1))
            if index >= len(self.stages) - num_heads:
                logits.insert(0, self.seg_layers[index](x))
        return logits


@dataclass(frozen=True)
class _Stage:
    width: int
    kernel: Axes
    stride: Axes


class NnUNet(nn.Module):
    """The network.

    Args:
        task: What it maps from and to.
        options: How it is built.

    Raises:
        ModelError: Options contradict each other or the task.
    """

    def __init__(self, task: Task, options: NnUNetOptions) -> None:
        super().__init__()
        self.task, self.options = task, options
        dims = task.spatial_dims
        stages = [
            _Stage(width, per_axis("kernel", kernel, dims), per_axis("stride", stride, dims))
            for width, kernel, stride in zip(
                options.widths, options.kernels, options.strides, strict=True
            )
        ]
        if len(stages) < 2:
            raise ModelError("an nnU-Net network has at least 2 stages")
        self.multiple = tuple(
            prod(steps) for steps in zip(*(s.stride for s in stages), strict=True)
        )
        self.encoder = _Encoder(task, options, stages)
        self.decoder = _Decoder(task, options, stages)
        initialise_he(self)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of an image.

        Args:
            image: `[B, in_channels, *spatial]`; sizes that are no multiples of the total stride are
                padded by zeros and the logits cropped.

        Returns:
            `[B, num_classes, *spatial]`.

        Raises:
            ModelError: The shape does not fit.
        """
        check_input(image, spatial_dims=self.task.spatial_dims, in_channels=self.task.in_channels)
        size = image.shape[2:]
        padded = pad_to_multiple(image, self.multiple)
        return crop_to(self.decoder(self.encoder(padded), 1)[0], size)


def _activation(options: NnUNetOptions) -> nn.Module:
    if options.activation == "relu":
        return nn.ReLU(inplace=True)
    return nn.LeakyReLU(options.slope, inplace=True)


ARCHITECTURE = Architecture(
    name=NAME, options=NnUNetOptions, build=NnUNet, reference="Isensee et al. 2021 and 2024"
)
