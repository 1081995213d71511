"""Grids in space: affines, spacing, orientation, and equality of two grids.

Arrays are channel first, `[C, *spatial]`; a grid describes the spatial axes only, in array order.
World coordinates are RAS+ in millimetres (x to the right, y to the front, z to the head).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import nibabel as nib
import numpy as np
import numpy.typing as npt

from segmed.errors import GeometryError

ML_PER_CUBIC_MM = 1e-3
"""Millilitres in a cubic millimetre."""

AFFINE_TOLERANCE_MM = 1e-3
"""Largest distance between the corners of two grids that still count as the same grid, in mm."""

MAX_RESAMPLED_VOXELS = 1 << 31
"""Largest number of voxels of one channel after resampling; PyTorch counts to it in 32 bits."""

VANISHED_EDGE = 2
"""An image of at most so many voxels along every axis shows nothing,"""

VANISHING_EDGE = 16
"""if it has at least so many along one of them as stored."""

Affine = npt.NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Grid:
    """Shape and placement of an image.

    Attributes:
        shape: Voxels along each spatial axis, in array order (2 or 3 axes).
        affine_ras: 4x4 matrix from voxel indices (i, j, k, 1) to RAS+ millimetres. A 2D image has
            k = 0 and a unit third column.
    """

    shape: tuple[int, ...]
    affine_ras: Affine

    def __repr__(self) -> str:
        """Voxels and spacing in one line."""
        shape, edges = ("x".join(f"{one:g}" for one in of) for of in (self.shape, self.spacing_mm))
        return f"Grid({shape} voxels of {edges} mm)"

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel edge along each array axis, in mm."""
        return spacing_of(self.affine_ras)[: len(self.shape)]

    @property
    def orientation(self) -> str:
        """Direction of growing index for each array axis, such as `RAS` or `LPI`."""
        return "".join(nib.aff2axcodes(self.affine_ras))

    def corners_mm(self) -> npt.NDArray[np.float64]:
        """World coordinates of the grid's 2^d corner voxels, `[2^d, 3]`, in mm."""
        ends = [(0, max(n - 1, 0)) for n in self.shape] + [(0,)] * (3 - len(self.shape))
        index = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
        return np.asarray(index @ self.affine_ras[:3, :3].T + self.affine_ras[:3, 3])


def spacing_of(affine_ras: Affine) -> tuple[float, float, float]:
    """Voxel edge along each of the three index axes of an affine, in mm."""
    edges = np.sqrt((np.asarray(affine_ras, dtype=np.float64)[:3, :3] ** 2).sum(axis=0))
    return float(edges[0]), float(edges[1]), float(edges[2])


def grid_difference_mm(first: Grid, second: Grid) -> float:
    """Largest distance between corresponding corners, in mm; infinite where the shapes differ."""
    if first.shape != second.shape:
        return float("inf")
    steps = first.corners_mm() - second.corners_mm()
    return float(np.sqrt((steps**2).sum(axis=1)).max())


def same_grid(first: Grid, second: Grid, *, tolerance_mm: float = AFFINE_TOLERANCE_MM) -> bool:
    """Return whether two grids have one shape and all corners within `tolerance_mm`."""
    return grid_difference_mm(first, second) <= tolerance_mm


def require_same_grid(
    first: Grid,
    second: Grid,
    *,
    names: tuple[str, str],
    tolerance_mm: float = AFFINE_TOLERANCE_MM,
) -> None:
    """Refuse two grids that differ.

    Args:
        first: One grid.
        second: The other.
        names: What the two are, for the message.
        tolerance_mm: Largest corner distance that still counts as the same, in mm.

    Raises:
        GeometryError: The shapes differ, or a corner differs.
    """
    if first.shape != second.shape:
        raise GeometryError(
            f"{names[0]} and {names[1]} have different shapes: {first.shape} at "
            f"{spacing_text(first)} and {second.shape} at {spacing_text(second)}; "
            "bring them to one grid first"
        )
    difference = grid_difference_mm(first, second)
    if not difference <= tolerance_mm:
        raise GeometryError(
            f"{names[0]} and {names[1]} are up to {difference:.3f} mm apart on grids of the same "
            f"shape (tolerance {tolerance_mm} mm), their voxels {spacing_text(first)} and "
            f"{spacing_text(second)}; bring them to one grid first"
        )


def spacing_text(grid: Grid) -> str:
    """Voxel edges of a grid in words, such as `1 x 1 x 2.5 mm`."""
    return " x ".join(f"{edge:.4g}" for edge in grid.spacing_mm) + " mm"


def resampled_shape(
    shape: Sequence[int], spacing_mm: Sequence[float], target_mm: Sequence[float]
) -> tuple[int, ...]:
    """Voxels along each axis once the voxel edge is (nearly) `target_mm`, at least one."""
    return tuple(
        max(round(size * old / new), 1)
        for size, old, new in zip(shape, spacing_mm, target_mm, strict=True)
    )


def resampled_fault(
    shape: Sequence[int],
    target: Sequence[int],
    spacing_mm: Sequence[float],
    target_mm: Sequence[float],
) -> str:
    """Reason why an image must not be resampled to a shape, with the repair; empty if it may.

    Args:
        shape: Voxels along each axis as stored.
        target: Voxels along each axis after resampling, from `resampled_shape`.
        spacing_mm: Voxel edges as stored, in mm.
        target_mm: Voxel edges after resampling, in mm.
    """
    grows = prod(target) > MAX_RESAMPLED_VOXELS and prod(target) > prod(shape)
    vanishes = max(target) <= VANISHED_EDGE < VANISHING_EDGE <= max(shape)
    if not grows and not vanishes:
        return ""
    return (
        f"{_product(shape)} voxels of {_product(spacing_mm)} mm become {_product(target)} at "
        f"{_product(target_mm)} mm, "
        + (f"more than {MAX_RESAMPLED_VOXELS:,} voxels" if grows else "too few to show anything")
        + ": correct the spacing in the image's header, or choose another spacing in the plan"
    )


def _product(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:.6g}" for number in numbers)


def resampled_coordinates(num_in: int, num_out: int) -> npt.NDArray[np.float64]:
    """Input coordinate of each output voxel's centre, `[num_out]`, in input voxels."""
    return np.asarray((np.arange(num_out) + 0.5) * (num_in / num_out) - 0.5, dtype=np.float64)


def nearest_index(num_in: int, num_out: int) -> npt.NDArray[np.int64]:
    """Input voxel that each output voxel takes by nearest neighbour, `[num_out]`."""
    at = resampled_coordinates(num_in, num_out)
    return np.floor(at + 0.5).astype(np.int64).clip(0, num_in - 1)


def reorientation(affine_ras: Affine, target: str) -> npt.NDArray[np.float64]:
    """The axis permutation and flips that bring an affine to `target` axis codes.

    Returns:
        An orientation array as nibabel uses it, `[3, 2]`: output axis and flip for each input axis.
    """
    affine = np.ascontiguousarray(affine_ras, dtype=np.float64)
    return _turns(affine.tobytes(), affine.shape, target)


@lru_cache(maxsize=1024)
def _turns(affine: bytes, shape: tuple[int, ...], target: str) -> npt.NDArray[np.float64]:
    """Turns of an affine given as bytes; an image asks twice, a set has few affines."""
    given = np.frombuffer(affine, dtype=np.float64).reshape(shape)
    start = nib.orientations.io_orientation(given)
    turns = nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(target))
    found = np.array(turns, dtype=np.float64)
    found.flags.writeable = False
    return found
