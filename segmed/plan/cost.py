"""Work and memory of one training step, from the drawing of the network alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from segmed.losses.softmax_sums import MANY_CLASSES
from segmed.plan.topology import Topology

STEP_FACTOR = 3.0
"""A training step does this many times the work of the forward pass."""

CLASS_MACS = 1400.0
"""Work of the loss and its gradient for one voxel and class, in multiply-accumulates that take as
long; measured on one core."""

CLASS_MACS_OF_MANY = 300.0
"""The same from `MANY_CLASSES` on; measured at 149 classes on one core."""

ACTIVATION_BYTES_PER_VOXEL = 320
"""Bound on the training memory of one voxel for each feature of the finest level, in bytes, for the
architecture that takes most."""

CLASS_BYTES_PER_VOXEL = 130
"""The same for each class: logits, probabilities and gradients of as many as five heads."""


def unet_macs(
    patch_size: Sequence[int],
    topology: Topology,
    widths: Sequence[int],
    *,
    in_channels: int,
    num_classes: int,
    residual_blocks: Sequence[int] | None = None,
) -> float:
    """Multiply-accumulates of the forward pass of the planned U-Net for one patch.

    The U-Net is the measure for all architectures: the planned widths of the others take about as
    long.

    Args:
        patch_size: Voxels along each axis.
        topology: Kernels and strides of each level, finest first.
        widths: Features of each level.
        in_channels: Channels of the image.
        num_classes: Classes of the logits.
        residual_blocks: Residual blocks of each level of the encoder; the decoder then has one
            convolution a level.

    Returns:
        The multiply-accumulates of all convolutions.
    """
    total, voxels, before = 0.0, float(prod(patch_size)), in_channels
    for level, width in enumerate(widths):
        voxels /= prod(topology.strides[level])
        kernel = prod(topology.kernels[level])
        if residual_blocks is None:
            total += voxels * kernel * (before * width + width * width)
            joined = 3 * width * width
        else:
            total += voxels * _residual_macs(before, width, residual_blocks[level], kernel, level)
            joined = 2 * width * width
        if level + 1 < len(widths):  # the decoder's half: enlarged from below, then joined
            total += voxels * (widths[level + 1] * width + kernel * joined)
        before = width
    return total + prod(patch_size) * widths[0] * num_classes


def _residual_macs(before: int, width: int, blocks: int, kernel: int, level: int) -> float:
    """Multiply-accumulates of a residual level for one voxel; the first level has a stem."""
    stem = kernel * before * width if level == 0 else 0
    before = width if level == 0 else before
    skip = before * width if before != width else 0
    return stem + skip + kernel * (before * width + (2 * blocks - 1) * width * width)


def step_gmac(forward_macs: float, voxels: int, *, num_classes: int) -> float:
    """Work of a training step on one patch, loss and backward pass included, in 1e9.

    Args:
        forward_macs: What `unet_macs` gives.
        voxels: Voxels of the patch.
        num_classes: Classes of the logits.
    """
    class_macs = CLASS_MACS if num_classes < MANY_CLASSES else CLASS_MACS_OF_MANY
    return (STEP_FACTOR * forward_macs + class_macs * num_classes * voxels) / 1e9


def memory_voxels(memory_gb: float, *, width: int, num_classes: int) -> float:
    """Voxels of all patches of one step that certainly fit into a memory, by a quick bound.

    Within it no network needs measuring by `segmed.plan.step_memory`.

    Args:
        memory_gb: Memory of the training step, in GB.
        width: Features that the levels are multiples of.
        num_classes: Classes of the logits.
    """
    bytes_of_one = width * ACTIVATION_BYTES_PER_VOXEL + num_classes * CLASS_BYTES_PER_VOXEL
    return memory_gb * 1e9 / bytes_of_one
