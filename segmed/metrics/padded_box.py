"""A padded box in which neighbours are found by adding to a flat index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import floor, gamma, pi, prod

import numpy as np
import numpy.typing as npt

from segmed.metrics.pair import VOXELS_AT_ONCE, Box, Labels

Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]
Distances = npt.NDArray[np.float64]

SHELL_VOXELS = 500
"""About how many neighbours the search by shells looks at before a tree takes over."""


BAND_VOXELS = 1500
"""Voxels in the largest ball that is stepped over from every surface voxel."""


@dataclass(frozen=True)
class Shells:
    """Neighbour offsets in the order of their distance.

    Attributes:
        offsets: Index steps along each axis, `[n, axes]`, the nearest first.
        distances_mm: Length of each, in mm, `[n]`; every offset up to the last length is there.
        reach: Largest index step along each axis.
        ends: Where each group of equal distance ends, `[groups]`.
    """

    offsets: Places
    distances_mm: Distances
    reach: tuple[int, ...]
    ends: tuple[int, ...]


@dataclass(frozen=True)
class PaddedBox:
    """A box of voxels with a rim of background, addressed by flat index.

    Attributes:
        size: Voxels along each axis of the box.
        pad: Rim on each side of each axis, at least 1.
        spacing_mm: Voxel edge along each axis, in mm.
    """

    size: tuple[int, ...]
    pad: tuple[int, ...]
    spacing_mm: tuple[float, ...]

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis with the rim."""
        return tuple(n + 2 * rim for n, rim in zip(self.size, self.pad, strict=True))

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Offsets of a flat index to the next voxel along each axis."""
        return tuple(prod(self.shape[axis + 1 :]) for axis in range(len(self.shape)))

    def blank(self) -> Mask:
        """An empty mask, flat."""
        return np.zeros(prod(self.shape), dtype=bool)

    def mask(self, labels: Labels, values: Sequence[int]) -> Mask:
        """Voxels of some label values, flat, with the rim empty.

        Args:
            labels: Label values in the box, `[*size]`.
            values: The values that belong to the structure.

        Returns:
            Mask, flat, over the padded shape.
        """
        flat = self.blank()
        inside = tuple(slice(rim, rim + n) for n, rim in zip(self.size, self.pad, strict=True))
        target = flat.reshape(self.shape)[inside]
        np.equal(labels, values[0], out=target)
        for value in values[1:]:
            target |= labels == value
        return flat

    def flat_steps(self, offsets: Places) -> Places:
        """Index steps `[n, axes]` as steps of the flat index, `[n]`."""
        return np.asarray(offsets @ np.asarray(self.steps, dtype=np.intp))

    def points_mm(self, places: Places) -> Distances:
        """Positions of flat indices in the padded box, `[n, axes]`, in mm."""
        index = np.stack(np.unravel_index(places, self.shape), axis=-1)
        return np.asarray(index * np.asarray(self.spacing_mm))


def surface_places(mask: Mask, padded: PaddedBox) -> Places:
    """Flat indices of the mask's voxels that have a background neighbour across a face.

    Outside the volume is background, so a mask that touches the border has a surface there.

    Args:
        mask: Flat mask over the padded box, its rim empty.
        padded: The padded box.

    Returns:
        Sorted flat indices.
    """
    margin = padded.steps[0]
    parts = []
    for start in range(margin, mask.size - margin, VOXELS_AT_ONCE):
        stop = min(start + VOXELS_AT_ONCE, mask.size - margin)
        inner = mask[start - margin : stop - margin] & mask[start + margin : stop + margin]
        for step in padded.steps[1:]:
            inner &= mask[start - step : stop - step]
            inner &= mask[start + step : stop + step]
        parts.append(np.flatnonzero(mask[start:stop] > inner) + start)
    return np.concatenate(parts) if parts else np.empty(0, np.intp)


@lru_cache(maxsize=256)
def shells_within(spacing_mm: tuple[float, ...], radius_mm: float) -> Shells:
    """Every neighbour offset up to a radius, the zero offset first."""
    reach = tuple(floor(radius_mm / edge * (1 + 1e-12)) for edge in spacing_mm)
    axes = [np.arange(-n, n + 1) for n in reach]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(reach))
    lengths = np.sqrt(((offsets * np.asarray(spacing_mm)) ** 2).sum(axis=1))
    inside = lengths <= radius_mm * (1 + 1e-12)
    order = np.argsort(lengths[inside], kind="stable")
    sorted_mm = lengths[inside][order]
    ends = np.flatnonzero(np.append(np.diff(sorted_mm), np.inf)) + 1
    return Shells(offsets[inside][order], sorted_mm, reach, tuple(ends.tolist()))


def search_shells(spacing_mm: tuple[float, ...]) -> Shells:
    """The nearest `SHELL_VOXELS` neighbour offsets or so, for a voxel of this form."""
    return shells_within(spacing_mm, radius_of(SHELL_VOXELS, spacing_mm))


def radius_of(num_voxels: int, spacing_mm: tuple[float, ...]) -> float:
    """Radius of the ball of about this many voxels, in mm."""
    axes = len(spacing_mm)
    unit_ball = pi ** (axes / 2) / gamma(axes / 2 + 1)
    return float((num_voxels * prod(spacing_mm) / unit_ball) ** (1 / axes))


def steps_off(band_mm: float, spacing_mm: tuple[float, ...]) -> bool:
    """Return whether a band of this width is found by steps off the surface, and not by tiles."""
    return radius_of(BAND_VOXELS, spacing_mm) >= band_mm


def padded_box_for(box: Box, spacing_mm: tuple[float, ...], band_mm: float) -> PaddedBox:
    """A padded box whose rim lets the search and a band of `band_mm` step off the box."""
    size = tuple(axis.stop - axis.start for axis in box)
    reach = search_shells(spacing_mm).reach
    if steps_off(band_mm, spacing_mm):
        band = shells_within(spacing_mm, band_mm).reach
        reach = tuple(max(pair) for pair in zip(reach, band, strict=True))
    return PaddedBox(size, tuple(max(1, n) for n in reach), spacing_mm)
