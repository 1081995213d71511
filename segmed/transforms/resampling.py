"""Resampling between grids that cover the same field of view, one axis at a time.

A grid of `n` voxels becomes one of `m`: output voxel `i` is centred on input coordinate
`(i + 1/2) n/m - 1/2`, and beyond its ends an image goes on as its mirror image. This is
`scipy.ndimage.zoom(..., grid_mode=True, mode="reflect")`, written as one matrix product an axis.
Spline weights fade by 0.27 a voxel, so the matrices are narrow bands, and only the bands are
multiplied.

With `ends="edge"` an image goes on as its outermost voxel instead: that is what nnU-Net's networks
were trained on (`scikit-image`'s `resize`), and differs only near the borders, for order 3.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segmed.geometry import nearest_index, resampled_shape
from segmed.geometry import resampled_coordinates as coordinates

__all__ = ["axis_matrix", "coordinates", "in_memory_order", "resample", "resampled_shape",
           "resampled_view"]  # fmt: skip

NEGLIGIBLE_WEIGHT = 1e-9
"""Spline weights below this are taken as 0; it moves results by less than float32 rounding."""

CACHED_ROWS = 1024
"""Lines of voxels multiplied at once where the resampled axis is the innermost in memory."""

EDGE_VOXELS = 12
"""Voxels by which an image is continued for its spline coefficients, as SciPy does it."""

Ends = Literal["mirror", "edge"]
"""Continuation of an image beyond its ends."""

BLOCK_ROWS = 48
"""Output voxels computed by one product, which needs only the input voxels near them."""


def resample(
    image: Tensor,
    shape: Sequence[int],
    *,
    order: int | Sequence[int] = 3,
    flips: Sequence[bool] | None = None,
) -> Tensor:
    """An image on a grid of another shape over the same field of view.

    Args:
        image: `[C, *spatial]`, in any memory layout; floating point unless `order` is 0.
        shape: Voxels of the result along each spatial axis.
        order: 0 nearest, 1 linear, 3 cubic B-spline; one for all axes or one each.
        flips: Axes to be mirrored as well, which costs nothing extra where they are resampled.

    Returns:
        `[C, *shape]`, contiguous, of the type of `image`.

    Source:
        Unser 1999, IEEE Signal Processing Magazine 16(6), for splines with a prefilter.
    """
    return resampled_view(image, shape, order=order, flips=flips).contiguous()


def resampled_view(
    image: Tensor,
    shape: Sequence[int],
    *,
    order: int | Sequence[int] = 3,
    flips: Sequence[bool] | None = None,
    ends: Ends = "mirror",
) -> Tensor:
    """As `resample`, in the memory layout of `image`, of which it may be a view."""
    sizes = tuple(image.shape[1:])
    orders = [order] * len(sizes) if isinstance(order, int) else list(order)
    mirrored = [False] * len(sizes) if flips is None else list(flips)
    left = sorted(range(len(sizes)), key=lambda axis: (shape[axis] / sizes[axis], axis))
    for axis in left:
        if shape[axis] == sizes[axis]:
            continue
        if orders[axis] == 0:
            index = nearest_index(sizes[axis], shape[axis])[:: -1 if mirrored[axis] else 1]
            dense, layout = in_memory_order(image)
            # numpy's take is twenty times quicker here than torch's index_select
            taken = np.take(dense.numpy(), index, axis=layout.index(axis + 1))
            image = torch.from_numpy(taken).permute(_inverse(layout))
        else:
            matrix = (shape[axis], orders[axis], mirrored[axis], ends)
            image = _product(image, axis + 1, *matrix)
        mirrored[axis] = False
    if any(mirrored):
        image = image.flip([axis + 1 for axis, flip in enumerate(mirrored) if flip])
    return image


def _product(image: Tensor, axis: int, num_out: int, order: int, flip: bool, ends: Ends) -> Tensor:
    """The image with one axis multiplied by its resampling matrix, in the layout it came in."""
    dense, layout = in_memory_order(image)
    place = layout.index(axis)
    sizes = list(dense.shape)
    before, after = prod(sizes[:place]), prod(sizes[place + 1 :])
    source = dense.reshape(before, sizes[place], after)
    result = source.new_empty((before, num_out, after))
    bands = [(r, c, w.to(source)) for r, c, w in _bands(sizes[place], num_out, order, flip, ends)]
    if after == 1:
        _last_axis_product(source[..., 0], bands, result[..., 0])
    for rows, columns, block in bands if after > 1 else ():
        if before == 1:
            torch.mm(block, source[0, columns], out=result[0, rows])
        else:
            result[:, rows] = torch.matmul(block, source[:, columns])
    sizes[place] = num_out
    return result.reshape(sizes).permute(_inverse(layout))


def _last_axis_product(
    source: Tensor, bands: Sequence[tuple[slice, slice, Tensor]], result: Tensor
) -> None:
    """`result = source @ matrix.T`, a few rows at a time so that they stay in the cache."""
    turned = [(rows, columns, block.T.contiguous()) for rows, columns, block in bands]
    for first in range(0, len(source), CACHED_ROWS):
        some = slice(first, first + CACHED_ROWS)
        for rows, columns, block in turned:
            torch.mm(source[some, columns], block, out=result[some, rows])


def in_memory_order(image: Tensor) -> tuple[Tensor, list[int]]:
    """A tensor with its axes in memory order, and which axis each of them was.

    Nothing is copied for any permutation of a dense tensor; others become contiguous.
    """
    strides = list(image.stride())
    layout = sorted(range(image.ndim), key=lambda dim: (-strides[dim], dim))
    return image.permute(layout).contiguous(), layout


def _inverse(layout: list[int]) -> list[int]:
    return [layout.index(dim) for dim in range(len(layout))]


@lru_cache(maxsize=64)
def _bands(
    num_in: int, num_out: int, order: int, flip: bool, ends: Ends
) -> tuple[tuple[slice, slice, Tensor], ...]:
    """The resampling matrix as blocks of rows, each with the columns that it needs."""
    matrix = axis_matrix(num_in, num_out, order, ends)
    if flip:
        matrix = matrix[::-1]
    bands = []
    starts = [*range(0, num_out, BLOCK_ROWS), num_out]
    for first, last in itertools.pairwise(starts):
        used = np.flatnonzero(matrix[first:last].any(axis=0))
        columns = slice(int(used[0]), int(used[-1]) + 1)
        weights = np.ascontiguousarray(matrix[first:last, columns], dtype=np.float32)
        bands.append((slice(first, last), columns, torch.from_numpy(weights)))
    return tuple(bands)


def axis_matrix(
    num_in: int, num_out: int, order: int, ends: Ends = "mirror"
) -> npt.NDArray[np.float64]:
    """The weights of resampling along one axis.

    Args:
        num_in: Voxels of the input.
        num_out: Voxels of the output.
        order: 1 linear, 3 cubic B-spline with its prefilter.
        ends: Continuation of the image beyond its ends.

    Returns:
        `[num_out, num_in]`; each row sums to 1 up to 1e-8.
    """
    at = coordinates(num_in, num_out)
    if ends == "edge" and order == 3:
        return _edge_matrix(num_in, at)
    below = np.floor(at).astype(np.int64)
    t = at - below
    taps = {0: 1 - t, 1: t} if order == 1 else _cubic_taps(t)
    matrix = np.zeros((num_out, num_in))
    for step, weight in taps.items():
        folded = np.mod(below + step, 2 * num_in)
        index = np.where(folded < num_in, folded, 2 * num_in - 1 - folded)
        np.add.at(matrix, (np.arange(num_out), index), weight)
    if order == 3 and num_in > 1:
        from scipy import ndimage  # noqa: PLC0415 - images on the plan's own grid do without

        matrix = matrix @ ndimage.spline_filter1d(np.eye(num_in), 3, axis=0, mode="reflect")
    matrix[np.abs(matrix) < NEGLIGIBLE_WEIGHT] = 0.0
    return np.asarray(matrix)


def _cubic_taps(t: npt.NDArray[np.float64]) -> dict[int, npt.NDArray[np.float64]]:
    """Weights of the four voxels about a coordinate, by their step from the one below it."""
    return {
        -1: (1 - t) ** 3 / 6,
        0: (4 - 6 * t**2 + 3 * t**3) / 6,
        1: (1 + 3 * t + 3 * t**2 - 3 * t**3) / 6,
        2: t**3 / 6,
    }


def _edge_matrix(num_in: int, at: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Cubic weights of an image that is extended by its outermost voxels."""
    from scipy import ndimage  # noqa: PLC0415 - images on the plan's own grid do without

    lead = EDGE_VOXELS
    padded = np.pad(np.eye(num_in), ((lead, lead), (0, 0)), mode="edge")
    spline = ndimage.spline_filter1d(padded, 3, axis=0, mode="nearest")
    below = np.floor(at).astype(np.int64)
    matrix = np.zeros((len(at), num_in))
    for step, weight in _cubic_taps(at - below).items():
        rows = np.clip(below + step + lead, 0, len(spline) - 1)
        matrix += weight[:, None] * spline[rows]
    matrix[np.abs(matrix) < NEGLIGIBLE_WEIGHT] = 0.0
    return matrix
