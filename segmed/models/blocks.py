"""Convolution, norm and activation for 2 or 3 axes, and their initialisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from segmed.errors import ModelError
from segmed.models.options import Activation, Axes, ConvStyle, Level, Norm

LEAKY_SLOPE = 0.01
"""Slope of the leaky ReLU for negative values."""

CONV: dict[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
DECONV: dict[int, Callable[..., nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class VolumeMaxPool(nn.MaxPool3d):
    """Max-pooling of volumes that has a deterministic gradient where windows do not overlap.

    PyTorch's own gradient adds up in any order on a GPU. Where only deterministic algorithms are
    allowed, the maximum over blocks is used, which shares the gradient of equal values.
    """

    @property
    def has_blocks(self) -> bool:
        """Return whether each voxel is in exactly one window."""
        return _triple(self.kernel_size) == _triple(self.stride) and not any(_triple(self.padding))

    def forward(self, volume: Tensor) -> Tensor:
        """Pooled volume `[B, C, *spatial]`."""
        is_strict = volume.is_cuda and torch.are_deterministic_algorithms_enabled()
        if is_strict and self.has_blocks:
            return block_maximum(volume, _triple(self.stride), ceil_mode=self.ceil_mode)
        pooled: Tensor = super().forward(volume)
        return pooled


def _triple(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value,) * 3 if isinstance(value, int) else tuple(value)


def block_maximum(volume: Tensor, block: Sequence[int], *, ceil_mode: bool) -> Tensor:
    """Largest value of each block of a volume.

    Args:
        volume: `[B, C, *spatial]`.
        block: Voxels of a block along each axis.
        ceil_mode: Count a last, partial block.

    Returns:
        `[B, C, *blocks]`.
    """
    counts = [
        -(-size // step) if ceil_mode else size // step
        for size, step in zip(volume.shape[2:], block, strict=True)
    ]
    whole = [count * step for count, step in zip(counts, block, strict=True)]
    missing = [wanted - size for wanted, size in zip(whole, volume.shape[2:], strict=True)]
    amounts = [n for right in reversed(missing) for n in (0, right)]
    padded = nn.functional.pad(volume, amounts, value=-math.inf)
    return split_in_blocks(padded, block).amax(dim=(3, 5, 7))


def split_in_blocks(volume: Tensor, block: Sequence[int]) -> Tensor:
    """Two axes for each of a volume's: the block, and the place within it.

    Args:
        volume: `[B, C, *spatial]`, a multiple of `block`.
        block: Voxels of a block along each axis.

    Returns:
        `[B, C, x, block x, y, block y, z, block z]`.
    """
    split = [
        n for size, step in zip(volume.shape[2:], block, strict=True) for n in (size // step, step)
    ]
    return volume.reshape(*volume.shape[:2], *split)


MAX_POOL: dict[int, Callable[..., nn.Module]] = {2: nn.MaxPool2d, 3: VolumeMaxPool}
BATCH_NORM: dict[int, Callable[..., nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}

CONV_TYPES = (nn.Conv2d, nn.Conv3d)
DECONV_TYPES = (nn.ConvTranspose2d, nn.ConvTranspose3d)


def make_norm(norm: Norm, spatial_dims: int, channels: int) -> nn.Module:
    """A normalisation layer with scale and shift.

    Instance norm is group norm with one channel a group: the same function and parameters, and
    three times faster on a CPU than PyTorch's own.

    Args:
        norm: Kind; None gives the identity.
        spatial_dims: 2 or 3.
        channels: Features.

    Returns:
        The layer.
    """
    if norm is None:
        return nn.Identity()
    if norm == "batch":
        return BATCH_NORM[spatial_dims](channels)
    groups = channels if norm == "instance" else num_groups(channels)
    return nn.GroupNorm(groups, channels)


def num_groups(channels: int) -> int:
    """Groups of a group norm: at least four channels each, 32 groups at most.

    Args:
        channels: Features.

    Returns:
        A divisor of `channels`.
    """
    return math.gcd(channels, max(1, min(32, channels // 4)))


def make_activation(activation: Activation, *, inplace: bool = True) -> nn.Module:
    """A non-linearity.

    Args:
        activation: Kind.
        inplace: Overwrite the input, which after a norm training need not keep.

    Returns:
        The layer.
    """
    if activation == "leaky_relu":
        return nn.LeakyReLU(LEAKY_SLOPE, inplace=inplace)
    return nn.ReLU(inplace=inplace)


def same_padding(kernel: Axes, dilation: Axes) -> Axes:
    """Zeros on either side that keep the size.

    Args:
        kernel: Odd kernel, per axis.
        dilation: Step between its taps, per axis.

    Returns:
        Padding per axis.
    """
    return tuple((k - 1) // 2 * step for k, step in zip(kernel, dilation, strict=True))


class ConvUnit(nn.Sequential):
    """Convolution, norm, activation.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Features before.
        out_channels: Features after.
        kernel: Kernel per axis.
        style: Norm, activation and bias.
        padding: Zeros on either side; None keeps the size at stride 1.
        stride: Step per axis.
        dilation: Step between the kernel's taps, per axis.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        kernel: Axes,
        style: ConvStyle,
        padding: Axes | None = None,
        stride: Axes | int = 1,
        dilation: Axes | None = None,
    ) -> None:
        dilation = dilation or (1,) * spatial_dims
        layers = [
            CONV[spatial_dims](
                in_channels,
                out_channels,
                kernel,
                stride=stride,
                padding=same_padding(kernel, dilation) if padding is None else padding,
                dilation=dilation,
                bias=style.norm is None if style.bias is None else style.bias,
            )
        ]
        if style.norm is not None:
            layers.append(make_norm(style.norm, spatial_dims, out_channels))
        if style.activation is not None:
            layers.append(make_activation(style.activation))
        super().__init__(*layers)


def double_conv(
    spatial_dims: int,
    in_channels: int,
    level: Level,
    *,
    style: ConvStyle,
    padding: Axes | None = None,
    dropout: float = 0.0,
    convs: int = 2,
    stride: Axes | int = 1,
) -> nn.Sequential:
    """Two convolutions, the block of the whole U-Net family.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Features before.
        level: Gives width and kernel.
        style: Norm, activation and bias.
        padding: Zeros on either side; None keeps the size.
        dropout: Probability of zeroing a feature after each convolution.
        convs: Convolutions, where there are not two.
        stride: Step of the first convolution.

    Returns:
        The block.
    """
    layers: list[nn.Module] = []
    for index, before in enumerate((in_channels, *[level.width] * (convs - 1))):
        layers.append(
            ConvUnit(
                spatial_dims,
                before,
                level.width,
                kernel=level.kernel,
                style=style,
                padding=padding,
                stride=stride if index == 0 else 1,
            )
        )
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


def make_pools(levels: Sequence[Level]) -> nn.ModuleList:
    """Max-pooling into every level but the first; a last, partial window counts.

    Args:
        levels: Levels, finest first.

    Returns:
        One pooling for each level from the second on.
    """
    return nn.ModuleList(
        MAX_POOL[len(level.stride)](level.stride, stride=level.stride, ceil_mode=True)
        for level in levels[1:]
    )


def make_deconv(
    spatial_dims: int, in_channels: int, out_channels: int, *, stride: Axes
) -> nn.Module:
    """The up-convolution of the U-Net family: kernel equal to the stride, with bias.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Features before.
        out_channels: Features after.
        stride: Factor per axis.

    Returns:
        The layer.
    """
    return DECONV[spatial_dims](in_channels, out_channels, stride, stride=stride)


def pointwise(
    spatial_dims: int, in_channels: int, out_channels: int, *, bias: bool = True
) -> nn.Module:
    """A convolution with a kernel of 1.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Features before.
        out_channels: Features after.
        bias: Whether it has one.

    Returns:
        The layer.
    """
    return CONV[spatial_dims](in_channels, out_channels, 1, bias=bias)


def initialise_he(network: nn.Module) -> None:
    """Draw every convolution from N(0, sqrt(2 / fan_in)), with zero bias; norms are 1 and 0.

    The fan-in of a transposed convolution is what one output voxel sums over. PyTorch's own
    initialisation is 2.45 times smaller.

    Args:
        network: Its weights are replaced.

    Source:
        He et al. 2015, ICCV, eq. 10.
    """
    for module in network.modules():
        if isinstance(module, CONV_TYPES):
            fan_in = module.weight[0].numel()
        elif isinstance(module, DECONV_TYPES):
            taps = math.prod(module.kernel_size) / math.prod(module.stride)
            fan_in = max(1, round(module.in_channels // module.groups * taps))
        else:
            continue
        if module.weight.is_meta:
            continue
        with torch.no_grad():
            module.weight.normal_(0.0, math.sqrt(2.0 / fan_in))
            if module.bias is not None:
                module.bias.zero_()


def check_input(image: Tensor, *, spatial_dims: int, in_channels: int) -> None:
    """Refuse an input of another type, rank or number of channels.

    Args:
        image: `[B, C, *spatial]`.
        spatial_dims: Axes expected.
        in_channels: Channels expected.

    Raises:
        ModelError: Type or shape do not fit.
    """
    if not isinstance(image, Tensor) or not image.is_floating_point():
        kind = getattr(image, "dtype", type(image).__name__)
        raise ModelError(f"the network takes a tensor of floating-point numbers, got {kind}")
    if image.ndim != spatial_dims + 2 or image.shape[1] != in_channels:
        raise ModelError(
            f"the network takes [batch, {in_channels}, {spatial_dims} axes], "
            f"got {list(image.shape)}"
        )


def concat(parts: Sequence[Tensor]) -> Tensor:
    """Join feature maps along the channel axis.

    Args:
        parts: Maps of one size.

    Returns:
        The joined map.
    """
    return torch.cat(list(parts), dim=1)
