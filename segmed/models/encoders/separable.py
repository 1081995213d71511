"""Depthwise separable convolution with a norm after either half."""

from __future__ import annotations

from torch import nn

from segmed.models.blocks import CONV, make_activation, make_norm, same_padding
from segmed.models.options import Axes, ConvStyle


def separable_conv(
    in_channels: int,
    out_channels: int,
    *,
    kernel: Axes,
    dilation: Axes,
    style: ConvStyle,
    stride: int = 1,
) -> nn.Sequential:
    """Depthwise convolution, norm, activation; pointwise convolution, norm, activation.

    Args:
        in_channels: Features before.
        out_channels: Features after.
        kernel: Kernel per axis.
        dilation: Step between taps, per axis.
        style: Norm and activation; no activation leaves both out.
        stride: Step on all axes.

    Returns:
        The block.

    Source:
        Chen et al. 2018, arXiv 1802.02611, section 3.1 and figure 3.
    """
    dims, bias = len(kernel), style.norm is None
    layers: list[nn.Module] = [
        CONV[dims](
            in_channels,
            in_channels,
            kernel,
            stride=stride,
            padding=same_padding(kernel, dilation),
            dilation=dilation,
            groups=in_channels,
            bias=bias,
        ),
        make_norm(style.norm, dims, in_channels),
    ]
    if style.activation is not None:
        layers.append(make_activation(style.activation))
    layers += [
        CONV[dims](in_channels, out_channels, 1, bias=bias),
        make_norm(style.norm, dims, out_channels),
    ]
    if style.activation is not None:
        layers.append(make_activation(style.activation))
    return nn.Sequential(*layers)
