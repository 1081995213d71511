"""Work and memory of one training step, from the drawing of the network alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from segmed.plan.topology import Topology

STEP_FACTOR = 3.0
"""A training step does this many times the work of the forward pass."""

CLASS_MACS = 1400.0
"""Work of the loss and its gradient for one voxel and class, in multiply-accumulates that take as
long; measured at 149 classes on one core."""

ACTIVATION_BYTES_PER_VOXEL = 320
"""Training memory of one voxel for each feature of the finest level, in bytes: two encoder and two
decoder convolutions with norm, activation and gradients, the coarser levels included."""

CLASS_BYTES_PER_VOXEL = 80
"""Training memory of one voxel for each class, in bytes: logits, probabilities and gradients of as
many as five heads."""


def unet_macs(
    patch_size: Sequence[int],
    topology: Topology,
    widths: Sequence[int],
    *,
    in_channels: int,
    num_classes: int,
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

    Returns:
        The multiply-accumulates of all convolutions.
    """
    total, voxels, before = 0.0, float(prod(patch_size)), in_channels
    for level, width in enumerate(widths):
        voxels /= prod(topology.strides[level])
        kernel = prod(topology.kernels[level])
        total += voxels * kernel * (before * width + width * width)
        if level + 1 < len(widths):  # the decoder's half: enlarged from below, then joined
            total += voxels * (widths[level + 1] * width + kernel * 3 * width * width)
        before = width
    return total + prod(patch_size) * widths[0] * num_classes


def step_gmac(forward_macs: float, voxels: int, *, num_classes: int) -> float:
    """Work of a training step on one patch, loss and backward pass included, in 1e9.

    Args:
        forward_macs: What `unet_macs` gives.
        voxels: Voxels of the patch.
        num_classes: Classes of the logits.
    """
    return (STEP_FACTOR * forward_macs + CLASS_MACS * num_classes * voxels) / 1e9


def memory_voxels(memory_gb: float, *, width: int, num_classes: int) -> float:
    """Voxels of all patches of one step that fit into a memory.

    Args:
        memory_gb: Memory of the training step, in GB.
        width: Features that the levels are multiples of.
        num_classes: Classes of the logits.
    """
    bytes_of_one = width * ACTIVATION_BYTES_PER_VOXEL + num_classes * CLASS_BYTES_PER_VOXEL
    return memory_gb * 1e9 / bytes_of_one
