"""Kernels of one shape converted to another: channels, dimension, dense layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Inflation = Literal["centre", "mean"]


def fit_kernel(
    weight: Tensor, shape: Sequence[int], *, inflation: Inflation, slice_axis: int = -1
) -> Tensor | None:
    """A tensor of another shape that computes the same as the given one.

    Args:
        weight: Tensor of a file.
        shape: What the network has.
        inflation: How a 2D kernel becomes 3D.
        slice_axis: Spatial axis that is new then.

    Returns:
        The tensor, or None where no rule leads to the shape.
    """
    wanted = tuple(shape)
    if tuple(weight.shape) == wanted:
        return weight
    if weight.ndim == 2 and len(wanted) > 2:  # a dense layer seen as a convolution
        if weight.shape[0] == wanted[0] and weight[0].numel() == torch.Size(wanted[1:]).numel():
            return weight.reshape(wanted)
        return None
    if weight.ndim == 4 and len(wanted) == 5:
        weight = inflate(weight, wanted[2:], inflation=inflation, slice_axis=slice_axis)
    if weight.ndim >= 4 and weight.ndim == len(wanted) and weight.shape[1] != wanted[1]:
        weight = adapt_channels(weight, wanted[1])
    return weight if tuple(weight.shape) == wanted else None


def adapt_channels(weight: Tensor, in_channels: int) -> Tensor:
    """A first convolution for another number of input channels.

    Args:
        weight: `[out, in, *kernel]`.
        in_channels: Wanted.

    Returns:
        `[out, in_channels, *kernel]`: the sum over the old channels, shared out evenly, so that
        equal channels are answered as before. For one channel that is the sum.
    """
    total = weight.sum(1, keepdim=True)
    return (total / in_channels).expand(-1, in_channels, *weight.shape[2:]).clone()


def inflate(
    weight: Tensor, kernel: Sequence[int], *, inflation: Inflation, slice_axis: int = -1
) -> Tensor:
    """A 3D kernel from a 2D one.

    Args:
        weight: `[out, in, h, w]`.
        kernel: Wanted, per axis.
        inflation: `centre` puts the kernel into the middle slice of zeros, which equals the 2D
            convolution on every slice; `mean` repeats it, divided by the number of slices (I3D),
            which does so only on input that is constant along the new axis.
        slice_axis: Spatial axis that is new.

    Returns:
        `[out, in, *kernel]` where the other two axes agree.

    Source:
        Carreira, Zisserman 2017, CVPR (mean).
    """
    axis = 2 + slice_axis % 3
    depth = kernel[slice_axis % 3]
    stacked = weight.unsqueeze(axis)
    if inflation == "mean":
        return stacked.repeat_interleave(depth, dim=axis) / depth
    inflated = torch.zeros_like(stacked).repeat_interleave(depth, dim=axis)
    inflated.narrow(axis, depth // 2, 1).copy_(stacked)
    return inflated
