"""Inverse of preparation in one piece: what `segmed.transforms.inverse` must give, bit for bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segmed.errors import GeometryError
from segmed.geometry import resampled_coordinates
from segmed.transforms.grid_transform import GridTransform, Prepared


def inverse_probs(probs: Tensor, prepared: Prepared) -> Tensor:
    """Class probabilities on the grid of the image as stored.

    Linear between voxel centres, and exact (no arithmetic at all) along axes that were not
    resampled. Voxels that had been cropped away are background with certainty.

    Args:
        probs: `[K, *target]`, class 0 the background.
        prepared: The image as `prepare` gave it.

    Returns:
        `[K, *input]`, of the type of `probs`.

    Raises:
        GeometryError: `probs` is not on the target grid.
    """
    return inverse_slab(probs, prepared, slice(0, prepared.grid_in.shape[0]))


def inverse_slab(probs: Tensor, prepared: Prepared, slab: slice) -> Tensor:
    """The part of `inverse_probs` that covers some slices of the input's first axis, bit for bit.

    Args:
        probs: `[K, *target]`, class 0 the background.
        prepared: The image as `prepare` gave it.
        slab: Slices of the input's first spatial axis, with step 1.

    Returns:
        `[K, slices, *rest of input]`, of the type of `probs`.

    Raises:
        GeometryError: `probs` is not on the target grid.
    """
    transform = prepared.transform
    if tuple(probs.shape[1:]) != transform.shape:
        raise GeometryError(
            f"probabilities of shape {tuple(probs.shape[1:])} do not lie on the prepared grid "
            f"{transform.shape}: give the network's output for this image"
        )
    first, last, _ = slab.indices(transform.grid_in.shape[0])
    turned_of = [transform.axes.index(axis) for axis in range(len(transform.axes))]
    image = probs.permute(0, *(turned_axis + 1 for turned_axis in turned_of))
    kept = [transform.kept(turned_axis) for turned_axis in turned_of]
    kept[0] = (max(kept[0][0], first), max(min(kept[0][1], last), kept[0][0], first))
    # The order depends on the transform alone, so that every slab rounds alike; smallest first.
    growth = [transform.cropped_shape[t] / transform.shape[t] for t in turned_of]
    for axis in sorted(range(len(growth)), key=lambda axis: (growth[axis], axis)):
        image = _interpolated(image, axis, transform, kept[axis])
    sizes = [max(last - first, 0), *transform.grid_in.shape[1:]]
    if list(image.shape[1:]) == sizes:
        return image.contiguous()
    whole = probs.new_zeros((probs.shape[0], *sizes))
    whole[0] = 1.0
    offset = [first] + [0] * (len(sizes) - 1)
    region = tuple(
        slice(start - shift, stop - shift)
        for (start, stop), shift in zip(kept, offset, strict=True)
    )
    whole[(slice(None), *region)] = image
    return whole


def _interpolated(
    image: Tensor, axis: int, transform: GridTransform, kept: tuple[int, int]
) -> Tensor:
    """The image along one input axis, at the voxels `kept[0]..kept[1]-1` of the input."""
    turned_axis = transform.axes.index(axis)
    start, stop = transform.box[turned_axis]
    index = np.arange(*kept)
    if transform.flips[turned_axis]:
        index = transform.grid_in.shape[axis] - 1 - index
    index = index - start
    num_target = transform.shape[turned_axis]
    if num_target == stop - start:
        whole_axis = len(index) == num_target and not transform.flips[turned_axis]
        return image if whole_axis else image.index_select(axis + 1, _on(index, image))
    at = resampled_coordinates(num_target, stop - start)[index].clip(0, num_target - 1)
    below = np.floor(at).astype(np.int64).clip(0, max(num_target - 2, 0))
    above = np.minimum(below + 1, num_target - 1)
    view = [1] * image.ndim
    view[axis + 1] = len(index)
    weight = torch.from_numpy(at - below).to(image).view(view)
    # Two roundings, never a fused one: the same bits whatever part of the axis is asked for.
    low = image.index_select(axis + 1, _on(below, image)).mul_(1 - weight)
    high = image.index_select(axis + 1, _on(above, image)).mul_(weight)
    return low.add_(high)


def _on(index: npt.NDArray[np.int64], image: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(index)).to(image.device)
