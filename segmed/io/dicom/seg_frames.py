"""Frames of segmentation objects: which there are, and their pixels, one at a time.

Source:
    DICOM PS3.3 C.8.20.2.3 (BINARY and FRACTIONAL), PS3.5 8.1.1 (1-bit pixels run over frame
    borders) and A.4 (encapsulated pixels).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import IO, Any, Protocol

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.uid import RLELossless

from segmed.io.dicom.frames import slices_of
from segmed.io.dicom.references import References
from segmed.structures import LabelClass

Mask = npt.NDArray[np.unsignedinteger[Any]]
ITEM, SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


class FrameSource(Protocol):
    """Pixels of each segment on each slice.

    Attributes:
        present: `[slices, segments]`: whether a segment has a pixel above 0 on a slice.
        overlaps: Whether segments may share a voxel.
    """

    present: npt.NDArray[np.bool_]
    overlaps: bool

    def frame(self, number: int, k: int) -> Mask:
        """Pixels `[rows, columns]` of segment `number`, from 0, on slice `k`."""
        ...


class LabelFrames:
    """Masks of the structures of a label map; regions overlap.

    Args:
        slices: `[slices, rows, columns]` label values.
        labels: The structures.
    """

    def __init__(self, slices: npt.NDArray[Any], labels: Sequence[LabelClass]) -> None:
        self._slices, self._labels = slices, labels
        self.overlaps = any(entry.region for entry in labels)
        size = max(value for entry in labels for value in entry.values) + 1
        has = np.stack([np.bincount(plane.ravel(), minlength=size) > 0 for plane in slices])
        self.present = np.stack(
            [has[:, list(entry.values)].any(axis=1) for entry in labels], axis=1
        )

    def frame(self, number: int, k: int) -> Mask:
        """The mask `[rows, columns]` of a structure, 0 and 1."""
        return np.asarray(self._labels[number].mask(self._slices[k])).astype(np.uint8)


def shown_frames(source: FrameSource, *, all_frames: bool) -> npt.NDArray[np.bool_]:
    """The frames that an object gets, `[slices, segments]`; at least one."""
    shown = np.ones_like(source.present) if all_frames else source.present.copy()
    if not shown.any():
        shown[0, 0] = True
    return shown


def stand_in_planes(shown: npt.NDArray[np.bool_], shape: tuple[int, int]) -> Mask:
    """Small planes from which highdicom makes exactly these frames; their pixels mean nothing.

    Each segment has one pixel of its own on each slice that shows it, so memory is that of a label
    map however segments overlap.

    Args:
        shown: `[slices, segments]`.
        shape: Rows and columns.
    """
    slices, segments = shown.shape
    if segments > shape[0] * shape[1]:
        planes = np.zeros((slices, *shape, segments), dtype=np.uint8)
        planes[:, 0, 0] = shown
        return planes
    marked = np.zeros((slices, *shape), dtype=np.uint8 if segments <= 255 else np.uint16)
    numbers = np.arange(1, segments + 1)
    marked.reshape(slices, -1)[:, :segments] = shown * numbers
    return marked


def write_pixels(
    stream: IO[bytes], segmentation: hd.seg.Segmentation, source: FrameSource, used: References
) -> None:
    """Write the pixels of an object's frames in their order, one frame at a time.

    Args:
        stream: Where to; the value of PixelData, without the mark at the end of compressed ones.
        segmentation: The object, whose frames say segment and place.
        source: The pixels.
        used: The source images, whose places number the slices.
    """
    pixels = (source.frame(number, k) for number, k in _frames_of(segmentation, used))
    if segmentation.SegmentationType == "BINARY":
        size = _write_bits(stream, pixels)
    else:
        size = _write_compressed(stream, pixels, str(segmentation.PhotometricInterpretation))
    if size % 2:
        stream.write(b"\0")


def _frames_of(segmentation: hd.seg.Segmentation, used: References) -> Iterator[tuple[int, int]]:
    """Segment, from 0, and slice of each frame."""
    places = np.array([part.position or (0.0, 0.0, 0.0) for _, part in used.audit.slices])
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    groups = segmentation.PerFrameFunctionalGroupsSequence
    for group, part in zip(groups, slices_of(segmentation), strict=True):
        place = group if "SegmentIdentificationSequence" in group else shared
        number = int(place.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        away = np.abs(places - (part.position or (0.0, 0.0, 0.0))).sum(axis=1)
        yield number - 1, int(away.argmin())


def _write_bits(stream: IO[bytes], pixels: Iterator[Mask]) -> int:
    left = np.zeros(0, dtype=np.uint8)
    size = 0
    for mask in pixels:
        bits = np.concatenate([left, mask.ravel()]) if len(left) else mask.ravel()
        whole = len(bits) // 8 * 8
        size += stream.write(np.packbits(bits[:whole], bitorder="little").tobytes())
        left = bits[whole:].astype(np.uint8)
    return size + stream.write(np.packbits(left, bitorder="little").tobytes())


def _write_compressed(stream: IO[bytes], pixels: Iterator[Mask], photometric: str) -> int:
    stream.write(ITEM + struct.pack("<I", 0))  # an empty table of offsets
    for mask in pixels:
        frame = hd.frame.encode_frame(
            np.ascontiguousarray(mask),
            transfer_syntax_uid=RLELossless,
            bits_allocated=8,
            bits_stored=8,
            photometric_interpretation=photometric,
        )
        padded = frame + b"\0" * (len(frame) % 2)
        stream.write(ITEM + struct.pack("<I", len(padded)) + padded)
    return 0
