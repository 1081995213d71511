"""Probabilities of structures as bytes, gathered box by box on disk: memory stays bounded."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MOST = 255
"""Stored value of probability 1."""


class Fractions:
    """Probabilities of structures, 0 to 255, in a nameless file; 0 where nothing was put.

    Args:
        num: Structures.
        shape: Shape of the image, `(i, j, k)` or `(i, j)`.
        exclusive: The structures and the background share each voxel, so that the bytes of a voxel
            sum up to at most 255; else each structure has a probability of its own.
    """

    def __init__(self, num: int, shape: Sequence[int], *, exclusive: bool) -> None:
        columns, rows, slices = (*shape, 1)[:3]
        self.overlaps = not exclusive
        self._shape = (num, slices, rows, columns)
        self._file = tempfile.TemporaryFile(prefix="segmed-")  # noqa: SIM115 - lives as long as this
        weakref.finalize(self, self._file.close)  # removed with the last who needs it
        self._file.truncate(int(np.prod(self._shape)))  # a sparse file: empty parts take no room
        self.present = np.zeros((slices, num), dtype=bool)
        """`[slices, structures]`: whether a structure has a value above 0 on a slice."""

    @property
    def num(self) -> int:
        """Structures."""
        return self._shape[0]

    @property
    def grid_shape(self) -> tuple[int, int, int]:
        """Columns, rows and slices."""
        _, slices, rows, columns = self._shape
        return columns, rows, slices

    def put(self, region: Sequence[slice], values: npt.NDArray[np.uint8]) -> None:
        """Store a box of values.

        Args:
            region: Place of the box along each axis of the image.
            values: `[structures, *box]`.
        """
        if values.ndim == 3:
            values = values[..., None]
        i, j, k = (*region, slice(0, 1))[:3]
        first = k.start or 0
        turned = values.transpose(0, 3, 2, 1)  # structures, slices, rows, columns
        # A map of its own for each box: its pages leave the memory of the process with it.
        stored = self._mapped()
        for number, depth in zip(*np.nonzero(turned.any(axis=(2, 3))), strict=True):
            stored[number, first + depth, j, i] = turned[number, depth]
            self.present[first + depth, number] = True
        del stored

    def frame(self, number: int, k: int) -> npt.NDArray[np.uint8]:
        """The values of one structure on one slice, `[rows, columns]`."""
        _, slices, rows, columns = self._shape
        size = rows * columns
        self._file.seek((number * slices + k) * size)
        return np.frombuffer(self._file.read(size), dtype=np.uint8).reshape(rows, columns)

    def _mapped(self) -> np.memmap[tuple[int, ...], np.dtype[np.uint8]]:
        return np.memmap(self._file, dtype=np.uint8, mode="r+", shape=self._shape)


def bytes_of(probs: npt.NDArray[np.float32], *, exclusive: bool) -> npt.NDArray[np.uint8]:
    """Probabilities as bytes that give the same label as the probabilities.

    Args:
        probs: `[K, *box]`: of exclusive classes the first is the background, and they sum up to 1;
            else each channel is a region, which contains a voxel from above one half on.
        exclusive: Kind of the classes.

    Returns:
        `[structures, *box]`, within 2/255 of the probabilities. Of exclusive classes what is
        missing to 255 is the background's, and the first largest is the class of `probs`.
    """
    if not exclusive:
        nearest = np.rint(probs * MOST)
        half = MOST // 2
        bounded = np.where(probs > 0.5, np.maximum(nearest, half + 1), np.minimum(nearest, half))
        return np.asarray(bounded.astype(np.uint8))
    edges = np.rint(np.cumsum(probs, axis=0, dtype=np.float32) * MOST).clip(0, MOST)
    edges[-1] = MOST
    parts = np.diff(edges.astype(np.int16), axis=0, prepend=np.int16(0))
    winner, shown = probs.argmax(axis=0)[None], parts.argmax(axis=0)[None]
    wrong = np.nonzero((winner != shown)[0])
    if len(wrong[0]):  # by less than rounding: the class keeps its place
        first, second = (winner[0][wrong], *wrong), (shown[0][wrong], *wrong)
        rise = parts[second] + 1 - parts[first]
        parts[first] += rise
        parts[second] -= rise
    return np.asarray(parts[1:].astype(np.uint8))
