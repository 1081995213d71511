"""The overlap-tile strategy of the paper, by which tests check the valid U-Net.

Ronneberger et al. 2015, figure 2: each output tile is computed from an input tile that is larger by
the margin of the valid convolutions; beyond the image the input is mirrored.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.errors import ModelError
from segmed.models.unet import UNet, output_size


def predict_tiles(network: UNet, image: Tensor, *, tile: Sequence[int]) -> Tensor:
    """Logits of a whole image from a valid U-Net, tile by tile.

    Args:
        network: A U-Net with `padding="valid"`, in eval mode.
        image: `[B, C, *spatial]`, along each axis larger than the margin and than what is added to
            make whole tiles.
        tile: Input size of a tile along each axis; one that the network takes.

    Returns:
        `[B, num_classes, *spatial]`: what the network would answer to the mirrored whole image.

    Raises:
        ModelError: The network pads, cannot take the tile, or the image is too small to mirror.
    """
    if network.options.padding != "valid":
        raise ModelError("overlap tiles are for padding='valid'; other networks use a window")
    steps, margins = [], []
    for axis, edge in enumerate(tile):
        inner = output_size(network.levels, edge, axis)
        if inner is None:
            raise ModelError(f"the valid U-Net cannot take tiles of {edge} along axis {axis}")
        steps.append(inner)
        margins.append((edge - inner) // 2)
    size = image.shape[2:]
    padded = mirror(image, margins, [-n % step for n, step in zip(size, steps, strict=True)])
    starts = [range(0, n, step) for n, step in zip(size, steps, strict=True)]
    shape = [len(range_) * step for range_, step in zip(starts, steps, strict=True)]
    logits = image.new_zeros((image.shape[0], network.task.num_classes, *shape))
    for corner in itertools.product(*starts):
        source, target = padded, logits
        for axis, begin in enumerate(corner):
            source = source.narrow(axis + 2, begin, tile[axis])
            target = target.narrow(axis + 2, begin, steps[axis])
        target.copy_(network(source))
    return logits[(slice(None), slice(None), *(slice(0, n) for n in size))]


def mirror(image: Tensor, margins: Sequence[int], extra: Sequence[int]) -> Tensor:
    """Continue an image beyond its border by reflection, without repeating the border.

    Args:
        image: `[B, C, *spatial]`.
        margins: Voxels on either side, per axis.
        extra: Further voxels at the end, per axis.

    Returns:
        The larger image.

    Raises:
        ModelError: The image is smaller than what is to be mirrored.
    """
    pairs = [(m, m + more) for m, more in zip(margins, extra, strict=True)]
    for n, (_, after) in zip(image.shape[2:], pairs, strict=True):
        if after >= n:
            raise ModelError(f"an axis of {n} cannot be mirrored by {after}: take smaller tiles")
    padding = [width for pair in reversed(pairs) for width in pair]
    with torch.no_grad():
        return F.pad(image, padding, mode="reflect")
