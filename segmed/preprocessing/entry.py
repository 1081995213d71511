"""Record of one prepared case in a pack: image and label in blocks, and all that was measured."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segmed.io.packs import DamagedRecordError, Record
from segmed.preprocessing.blocks import (
    Array,
    BlockCache,
    Blocks,
    Box,
    block_shape,
    compress,
    decompress,
)
from segmed.preprocessing.coding import Coding, coding_of
from segmed.preprocessing.foreground import foreground_points
from segmed.transforms.grid_transform import GridTransform, Prepared

_LENGTH = struct.Struct("<II")
"""Length and CRC-32 of the compressed header, at the begin of a record."""


@dataclass(frozen=True)
class EntryFacts:
    """Facts of a prepared case that are known without reading its record.

    Attributes:
        shape: Voxels along each axis on the target grid.
        num_channels: Channels of the image.
        label_dtype: Type of the class indices as numpy names it; None without a label.
        header: Bytes of the header.
        lost: Structures that resampling leaves no voxel of.
        classes: Class indices that occur, without 0, in growing order.
        lowest: Smallest value of the image.
    """

    shape: tuple[int, ...]
    num_channels: int
    label_dtype: str | None
    header: int
    lost: tuple[str, ...]
    classes: tuple[int, ...]
    lowest: float

    @property
    def num_bytes(self) -> int:
        """Bytes of image (float32) and label in memory."""
        label = 0 if self.label_dtype is None else np.dtype(self.label_dtype).itemsize
        return prod(self.shape) * (4 * self.num_channels + label)

    def as_record(self) -> list[Any]:
        """Plain JSON values."""
        return [*astuple(self)]

    @classmethod
    def from_record(cls, record: Sequence[Any]) -> EntryFacts:
        """The facts from what `as_record` gave."""
        shape, num_channels, label_dtype, header, lost, classes, lowest = record
        return cls(
            tuple(shape), num_channels, label_dtype, header, tuple(lost), tuple(classes), lowest
        )


def encode_entry(
    prepared: Prepared,
    label: Tensor | None,
    *,
    measures: dict[str, Any] | None = None,
    lost: Sequence[str] = (),
    slice_axis: int | None = None,
    ignore_index: int | None = None,
) -> tuple[bytes, list[Any]]:
    """A prepared case as the content of a record.

    Args:
        prepared: The image.
        label: Class indices on its grid.
        measures: From `measure_reference`.
        lost: Structures that resampling leaves no voxel of.
        slice_axis: Axis across the slices that a 2D network is trained on, if it is.
        ignore_index: Class index of voxels that were not annotated.

    Returns:
        The content, and the facts for the index as JSON values.
    """
    image = prepared.tensor.numpy()
    block = block_shape(image.shape[1:], slice_axis)
    header: dict[str, Any] = {
        "transform": prepared.transform.record(),
        "measures": measures,
        "image": [],
        "label": None,
        "points": [],
    }
    payload: list[bytes] = []
    classes: tuple[int, ...] = ()
    start = 0
    for channel in image:
        coding = coding_of(channel)
        layout, parts = compress(channel, block, start, coding.encode)
        header["image"].append([coding.as_record(), layout.as_record()])
        payload += parts
        start = layout.offsets[-1]
    if label is not None:
        layout, parts = compress(label.numpy(), block, start, np.asarray)
        header["label"] = layout.as_record()
        payload += parts
        start = layout.offsets[-1]
        classes, found = foreground_points(label.numpy(), ignore_index)
        for indices in found:
            small = indices.astype(np.uint32 if label.numel() < 1 << 32 else np.int64)
            layout, parts = compress(small, small.shape, start, np.asarray)
            header["points"].append(layout.as_record())
            payload += parts
            start = layout.offsets[-1]
    head = zlib.compress(json.dumps(header).encode(), 1)
    facts = EntryFacts(
        shape=image.shape[1:],
        num_channels=len(image),
        label_dtype=None if label is None else label.numpy().dtype.str,
        header=_LENGTH.size + len(head),
        lost=tuple(lost),
        classes=classes,
        lowest=float(image.min()),
    )
    content = b"".join([_LENGTH.pack(len(head), zlib.crc32(head)), head, *payload])
    return content, facts.as_record()


class PreparedEntry:
    """One prepared case in a pack, of which a part is read at a time.

    Args:
        key: Key of the record.
        record: Where it lies.
        blocks: Blocks that were used last, of all entries.
    """

    def __init__(self, key: str, record: Record, blocks: BlockCache) -> None:
        self._name = (record.pack.name, key)
        self.record = record
        self.facts = EntryFacts.from_record(record.facts)
        self._blocks = blocks
        (head,) = record.read([(0, self.facts.header)])
        length, checksum = _LENGTH.unpack_from(head)
        head = head[_LENGTH.size :]
        if length != len(head) or zlib.crc32(head) != checksum:
            raise DamagedRecordError("the header of a prepared case is damaged")
        header = json.loads(zlib.decompress(head))
        self.measures: dict[str, Any] | None = header["measures"]
        self.transform = GridTransform.from_record(header["transform"])
        self._channels = [
            (Coding.from_record(coding), Blocks.from_record(layout))
            for coding, layout in header["image"]
        ]
        self._label = None if header["label"] is None else Blocks.from_record(header["label"])
        self._points = [Blocks.from_record(layout) for layout in header["points"]]

    @property
    def errors(self) -> tuple[float, ...]:
        """Largest difference of each channel from what was prepared."""
        return tuple(coding.error for coding, _ in self._channels)

    def image(self, box: Box | None = None, *, is_kept: bool = False) -> Tensor:
        """The image, or a box of it, float32 `[C, *box]`.

        Args:
            box: Part along each axis; the whole if not given.
            is_kept: Keep its blocks in memory for the next box.

        Raises:
            OSError: The pack is gone.
            DamagedRecordError: The record is damaged.
        """
        box = box or self._whole
        result = np.empty(
            (len(self._channels), *(part.stop - part.start for part in box)), dtype=np.float32
        )
        for channel, (coding, layout) in zip(result, self._channels, strict=True):
            self._fill(channel, layout, box, is_kept, coding.decode)
        return torch.from_numpy(result)

    def label(self, box: Box | None = None, *, is_kept: bool = False) -> Tensor | None:
        """Class indices, or a box of them, `[*box]`; None without a label.

        Args and Raises are those of `image`.
        """
        if self._label is None:
            return None
        box = box or self._whole
        shape = [part.stop - part.start for part in box]
        result = np.empty(shape, dtype=self._label.dtype)
        self._fill(result, self._label, box, is_kept, np.asarray)
        return torch.from_numpy(result)

    def points(self, number: int) -> npt.NDArray[np.int64]:
        """Voxels `[n, axes]` of one of the classes that occur.

        Args:
            number: Its place among `facts.classes`.

        Raises:
            OSError: The pack is gone.
            DamagedRecordError: The record is damaged.
        """
        key = (*self._name, "points", number)
        points = self._blocks.get(key)
        if points is None:
            (flat,) = self._read(self._points[number], [0], is_kept=False)
            found = np.unravel_index(flat.astype(np.int64), self.facts.shape)
            points = np.stack(found, axis=1)
            self._blocks.put(key, points)
        return points

    @property
    def _whole(self) -> Box:
        return tuple(slice(0, size) for size in self.facts.shape)

    def _fill(
        self,
        result: Array,
        layout: Blocks,
        box: Box,
        is_kept: bool,
        decode: Callable[[Array], Array],
    ) -> None:
        touched = list(layout.touched(box))
        blocks = self._read(layout, [number for number, _ in touched], is_kept=is_kept)
        for (_, place), block in zip(touched, blocks, strict=True):
            inside, target = [], []
            for part, wanted in zip(place, box, strict=True):
                first, last = max(part.start, wanted.start), min(part.stop, wanted.stop)
                inside.append(slice(first - part.start, last - part.start))
                target.append(slice(first - wanted.start, last - wanted.start))
            result[tuple(target)] = decode(block[tuple(inside)])

    def _read(self, layout: Blocks, numbers: Sequence[int], *, is_kept: bool) -> list[Array]:
        """Some blocks, from memory or in one visit to the pack."""
        name = (*self._name, layout.start)
        found: dict[int, Array] = {}
        for number in numbers:
            if (kept := self._blocks.get((*name, number))) is not None:
                found[number] = kept
        missing = [number for number in numbers if number not in found]
        spans = [
            (self.facts.header + layout.offsets[number], layout.sizes[number]) for number in missing
        ]
        contents = self.record.read(spans) if spans else []
        for number, content in zip(missing, contents, strict=True):
            place = np.unravel_index(number, layout.counts)
            shape = [part.stop - part.start for part in layout.box([int(n) for n in place])]
            block = decompress(content, layout.checksums[number], shape, layout.dtype)
            found[number] = block
            if is_kept:
                self._blocks.put((*name, number), block)
        return [found[number] for number in numbers]
