"""Read segmentations that 3D Slicer wrote, on the grid of the image that they belong to.

3D Slicer may crop a segmentation to the box of its segments, and keeps segments that overlap in
several layers of one file. Both are put back onto the image's own grid, and so are axes in another
order or direction. Anything that does not fit it is refused: `not_slicer`, `other_grid`, `overlap`,
`unknown_segment` and `repeated_segment`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segmed.encoding import LabelEncoding
from segmed.geometry import Affine, Grid, nearest_turn
from segmed.io.bytestream import refusal
from segmed.io.limits import ReadLimits
from segmed.io.nrrd import read_layers
from segmed.io.segment_fields import SlicerSegment, segments_of

if TYPE_CHECKING:
    from segmed.structures import LabelClass

GRID_TOLERANCE = 0.02
"""Largest distance of a voxel centre from one of the image's along an axis, in voxels."""


@dataclass(frozen=True)
class SlicerSegmentation:
    """A segmentation as its file has it.

    Attributes:
        layers: `[layer, i, j, k]`, label values.
        affine_ras: 4x4, voxel indices to RAS+ mm.
        segments: Its segments.
    """

    layers: npt.NDArray[Any]
    affine_ras: Affine
    segments: tuple[SlicerSegment, ...]


def read_slicer(path: Path, limits: ReadLimits | None = None) -> SlicerSegmentation:
    """Read a `.seg.nrrd` file.

    Args:
        path: The file.
        limits: Bounds on its size and spacing.

    Raises:
        ImageError: The file is not an NRRD, is damaged, or describes no segment (`not_slicer`).
    """
    layers, affine, pairs = read_layers(path, limits or ReadLimits())
    try:
        segments = tuple(segments_of(pairs))
    except ValueError as error:
        raise refusal(path, "corrupt", f"a segment has no whole number ({error})") from error
    if not segments:
        raise refusal(
            path, "not_slicer", "its header names no segment; save it as .seg.nrrd in 3D Slicer"
        )
    for segment in segments:
        if not 0 <= segment.layer < len(layers):
            raise refusal(
                path,
                "corrupt",
                f"segment {segment.name!r} is in layer {segment.layer} of {len(layers)}",
            )
    return SlicerSegmentation(layers, affine, segments)


def label_from_slicer(
    path: Path, grid: Grid, labels: Sequence[LabelClass], limits: ReadLimits | None = None
) -> npt.NDArray[np.int32]:
    """Label map of a 3D Slicer segmentation on the grid of its image.

    Args:
        path: The `.seg.nrrd` file.
        grid: Grid of the image.
        labels: Structures; each segment is one of them by its code, or else by its name.
        limits: Bounds on its size and spacing.

    Returns:
        `[i, j, k]` with the values of `labels`.

    Raises:
        ImageError: See the module; the message names the segment.
    """
    found = _turned(read_slicer(path, limits), grid)
    begin = _offset(path, found, grid)
    label = np.zeros(grid.shape, np.int32)
    used: dict[int, str] = {}
    for segment in found.segments:
        mask, where = _placed(found.layers[segment.layer] == segment.value, begin, grid.shape)
        if mask is None:
            raise refusal(
                path, "other_grid", f"segment {segment.name!r} has voxels outside the image"
            )
        value = _value_of(path, segment, labels)
        if value in used:
            raise refusal(
                path,
                "repeated_segment",
                f"segments {used[value]!r} and {segment.name!r} are the same structure; merge them",
            )
        used[value] = segment.name
        part = label[where]
        if (part[mask] != 0).any():
            raise refusal(
                path,
                "overlap",
                f"segment {segment.name!r} overlaps another one; a label map has one value a voxel",
            )
        part[mask] = value
    return label


def _turned(found: SlicerSegmentation, grid: Grid) -> SlicerSegmentation:
    """A segmentation with its axes in the order and direction of those of an image."""
    stored = Grid(found.layers.shape[1:], found.affine_ras)
    turn = nearest_turn(stored, grid)
    if turn is None or turn.is_identity:
        return found
    return replace(found, layers=turn.turned(found.layers), affine_ras=turn.grid(stored).affine_ras)


def _offset(path: Path, found: SlicerSegmentation, grid: Grid) -> npt.NDArray[np.int64]:
    """Index in the image of the first voxel of a segmentation with the same axes."""
    relative = np.linalg.inv(grid.affine_ras) @ found.affine_ras
    begin = relative[:3, 3]
    whole = np.rint(begin)
    corner = np.asarray(found.layers.shape[1:]) - 1.0
    turned = np.abs(relative[:3, :3] - np.eye(3)) @ corner
    if (turned + np.abs(begin - whole)).max() > GRID_TOLERANCE:
        raise refusal(
            path,
            "other_grid",
            "it is not on the grid of the image: set the image as source volume of the "
            "segmentation's geometry in 3D Slicer, and save again",
        )
    return np.asarray(whole, dtype=np.int64)


def _placed(
    mask: npt.NDArray[np.bool_], begin: npt.NDArray[np.int64], shape: Sequence[int]
) -> tuple[npt.NDArray[np.bool_] | None, tuple[slice, ...]]:
    """The part of a mask within an image and its place there; None if some of it is outside."""
    low = np.maximum(-begin, 0)
    high = np.maximum(np.minimum(np.asarray(shape) - begin, mask.shape), low)
    inner = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    where = tuple(slice(int(b + a), int(b + c)) for a, b, c in zip(low, begin, high, strict=True))
    return (inner if inner.sum() == mask.sum() else None), where


def _value_of(path: Path, segment: SlicerSegment, labels: Sequence[LabelClass]) -> int:
    painted = LabelEncoding(tuple(labels)).painted_names
    name = segment.name.casefold()
    by_code = {
        label.value
        for label in labels
        if label.code is not None and (label.code.scheme, label.code.value) == segment.code
    }
    by_name = {
        label.value
        for label in labels
        if name in {label.name.casefold(), painted[label.value].casefold()}
    }
    agreed = by_name & by_code if by_name and by_code else by_name | by_code
    if len(agreed) == 1:
        return agreed.pop()
    known = ", ".join(label.name for label in labels)
    why = "contradict each other" if by_name and by_code and not agreed else "name none of them"
    raise refusal(
        path,
        "unknown_segment",
        f"segment {segment.name!r} is not a structure of the model ({known}): its name "
        f"and code {why}",
    )
