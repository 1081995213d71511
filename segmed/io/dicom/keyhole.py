"""Outlines of 2D masks as single closed lines: holes are joined to their outline by keyholes.

Readers of structure sets fill each closed contour; a hole drawn as a contour of its own is filled
by many of them. A keyhole is a channel of no width from a hole to the line around it.

Source:
    DICOM PS3.3, C.8.8.6.3 (representing inner and outer contours).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from contourpy import FillType, contour_generator

Line = npt.NDArray[np.float64]
"""`[points, 2]`, column and row; the first point is not repeated."""


def outlines(mask: npt.NDArray[np.bool_]) -> list[Line]:
    """Closed outlines of a 2D mask, in voxel indices, one for each connected region.

    Args:
        mask: `[rows, columns]`; its border counts as surrounded by background.

    Returns:
        One line a region, half-way between its voxels and their neighbours; filled by any rule, it
        gives the region back without its holes.
    """
    padded = np.pad(mask.astype(np.float64), 1)
    generator = contour_generator(z=padded, fill_type=FillType.OuterOffset)
    filled: Any = generator.filled(0.5, np.inf)
    found = []
    for points, offsets in zip(*filled, strict=True):
        rings = [
            np.asarray(points[first : last - 1], dtype=np.float64) - 1.0
            for first, last in pairwise(offsets)
        ]
        found.append(with_keyholes(rings[0], rings[1:]))
    return found


def with_keyholes(outer: Line, holes: list[Line]) -> Line:
    """One line around a region with holes.

    Each hole is entered from its leftmost point, by a horizontal channel to the next line on its
    left. Holes are taken from left to right, so that this line is already part of the outline.

    Args:
        outer: Line around the region.
        holes: Lines around its holes, in the opposite direction.
    """
    line = outer
    for hole in sorted(holes, key=lambda ring: float(ring[:, 0].min())):
        start = int(hole[:, 0].argmin())
        ring = np.roll(hole, -start, axis=0)
        entry = ring[0]
        edge, meeting = _nearest_on_the_left(line, entry)
        line = np.vstack([line[: edge + 1], meeting, ring, entry, meeting, line[edge + 1 :]])
    return line


def _nearest_on_the_left(line: Line, point: Line) -> tuple[int, Line]:
    """The first edge on a ray to the left, by its first point, and the crossing."""
    ends = np.roll(line, -1, axis=0)
    y = point[1]
    crosses = (line[:, 1] <= y) != (ends[:, 1] <= y)
    rise = np.where(crosses, ends[:, 1] - line[:, 1], 1.0)  # edges along the ray are not met
    share = (y - line[:, 1]) / rise
    x = np.where(crosses, line[:, 0] + share * (ends[:, 0] - line[:, 0]), -np.inf)
    x[x >= point[0]] = -np.inf
    edge = int(x.argmax())
    return edge, np.array([x[edge], y])
