"""Arrays in compressed blocks: a patch is read without the rest of its volume."""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from numcodecs import blosc  # type: ignore[import-untyped]  # numcodecs ships none

from segmed.io.packs import DamagedRecordError

Array = npt.NDArray[Any]
Box = tuple[slice, ...]

BLOCK_EDGE = 64
"""Voxels of a block along each axis of a volume."""

SLICE_EDGES = (256, 4)
"""Voxels of a block within and across the slices that a 2D network walks through."""

RASTER_EDGE = 512
"""Voxels of a block along each axis of a 2D image."""

LEVEL = 3
"""Compression level of Zstandard: higher ones take several times as long for a few per cent."""


def block_shape(shape: Sequence[int], slice_axis: int | None = None) -> tuple[int, ...]:
    """Voxels of a block along each axis.

    Args:
        shape: Voxels of the whole along each axis.
        slice_axis: Axis across the slices that a 2D network is trained on, if it is.
    """
    edges = [RASTER_EDGE if len(shape) < 3 else BLOCK_EDGE] * len(shape)
    if slice_axis is not None and len(shape) > 2:
        edges = [SLICE_EDGES[1] if axis == slice_axis else SLICE_EDGES[0] for axis in range(3)]
    return tuple(max(1, min(edge, size)) for edge, size in zip(edges, shape, strict=True))


@dataclass(frozen=True)
class Blocks:
    """Layout of one array within a record.

    Attributes:
        shape: Shape of the array.
        block: Shape of a block; those at the end of an axis are smaller.
        dtype: Type as numpy names it.
        start: First byte.
        sizes: Bytes of each compressed block, in C order.
        checksums: CRC-32 of each compressed block.
    """

    shape: tuple[int, ...]
    block: tuple[int, ...]
    dtype: str
    start: int
    sizes: tuple[int, ...]
    checksums: tuple[int, ...]

    @cached_property
    def offsets(self) -> list[int]:
        """First byte of each block."""
        return [int(n) for n in np.cumsum([self.start, *self.sizes])]

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Blocks along each axis."""
        pairs = zip(self.shape, self.block, strict=True)
        return tuple(-(-size // edge) for size, edge in pairs)

    def box(self, place: Sequence[int]) -> Box:
        """Part of the array that a block covers.

        Args:
            place: Number of the block along each axis.
        """
        rows = zip(place, self.block, self.shape, strict=True)
        return tuple(slice(n * edge, min((n + 1) * edge, size)) for n, edge, size in rows)

    def touched(self, box: Box) -> Iterator[tuple[int, Box]]:
        """Number and box of each block that has a voxel in a box."""
        if any(part.stop <= part.start for part in box):
            return
        spans = [
            range(part.start // edge, -(-part.stop // edge))
            for part, edge in zip(box, self.block, strict=True)
        ]
        for place in product(*spans):
            yield int(np.ravel_multi_index(place, self.counts)), self.box(place)

    def as_record(self) -> list[Any]:
        """Plain JSON values."""
        return [self.shape, self.block, self.dtype, self.start, self.sizes, self.checksums]

    @classmethod
    def from_record(cls, record: Sequence[Any]) -> Blocks:
        """The layout from what `as_record` gave."""
        shape, block, dtype, start, sizes, checksums = record
        return cls(tuple(shape), tuple(block), dtype, start, tuple(sizes), tuple(checksums))


def compress(
    array: Array, block: Sequence[int], start: int, encode: Callable[[Array], Array]
) -> tuple[Blocks, list[bytes]]:
    """Compress an array block by block.

    Args:
        array: Any shape.
        block: Shape of a block.
        start: First byte of the first block in its record.
        encode: Turns the values of a block into what is kept.

    Returns:
        The layout, and the blocks one after the other.
    """
    first = encode(array[tuple(slice(0, edge) for edge in block)])
    layout = Blocks(array.shape, tuple(block), first.dtype.str, start, (), ())
    shuffle = _better_shuffle(encode(array[_middle(layout)]))
    parts = [
        _packed(encode(array[layout.box(place)]), shuffle)
        for place in product(*map(range, layout.counts))
    ]
    sizes = tuple(map(len, parts))
    sums = tuple(map(zlib.crc32, parts))
    return Blocks(array.shape, tuple(block), first.dtype.str, start, sizes, sums), parts


def _middle(layout: Blocks) -> Box:
    return layout.box([count // 2 for count in layout.counts])


def _better_shuffle(block: Array) -> int:
    """Order of bits or bytes in which a typical block becomes smaller."""
    modes: tuple[int, int] = (blosc.SHUFFLE, blosc.BITSHUFFLE)
    return min(modes, key=lambda mode: len(_packed(block, mode)))


def _packed(block: Array, shuffle: int) -> bytes:
    packed: bytes = blosc.compress(np.ascontiguousarray(block), b"zstd", LEVEL, shuffle)
    return packed


def decompress(content: bytes, checksum: int, shape: Sequence[int], dtype: str) -> Array:
    """One block as it was before compression.

    Raises:
        DamagedRecordError: The bytes are not those that were written.
    """
    if zlib.crc32(content) != checksum:
        raise DamagedRecordError("a block has another checksum than when it was written")
    values = np.frombuffer(blosc.decompress(content), dtype=dtype)
    if values.size != prod(shape):
        raise DamagedRecordError("a block has another size than its array")
    return values.reshape(tuple(shape))


class BlockCache:
    """Decompressed blocks that were used last, up to a number of bytes. Threads may use it at once.

    Args:
        max_bytes: Most bytes that are kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[Hashable, Array] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Array | None:
        """A block that is kept, which counts as used now."""
        with self._lock:
            block = self._kept.get(key)
            if block is not None:
                self._kept.move_to_end(key)
            return block

    def put(self, key: Hashable, block: Array) -> None:
        """Keep a block, and give up those that were not used for longest."""
        if block.nbytes > self.max_bytes:
            return
        with self._lock:
            if key not in self._kept:
                self._kept[key] = block
                self._bytes += block.nbytes
            while self._bytes > self.max_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= oldest.nbytes
