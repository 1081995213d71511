"""Grids in space: affines, spacing, orientation, and equality of two grids.

Arrays are channel first, `[C, *spatial]`; a grid describes the spatial axes only, in array order.
World coordinates are RAS+ in millimetres (x to the right, y to the front, z to the head).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TypeVar

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

AnyType = TypeVar("AnyType", bound=np.generic)


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
        return "".join(code or "?" for code in nib.aff2axcodes(self.affine_ras))

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
        names: What the two are, for the message, which advises to change the second.
        tolerance_mm: Largest corner distance that still counts as the same, in mm.

    Raises:
        GeometryError: The shapes differ, or a corner differs.
    """
    if not same_grid(first, second, tolerance_mm=tolerance_mm):
        raise GeometryError(grid_difference(first, second, names=names))


def grid_difference(first: Grid, second: Grid, *, names: tuple[str, str]) -> str:
    """The difference of two grids in words: both values of what differs, and the repair.

    Args:
        first: One grid.
        second: The other, which is to be changed.
        names: What the two are.
    """
    turn = nearest_turn(second, first)
    turned = second if turn is None else turn.grid(second)
    if same_grid(first, turned):
        turned = second  # nothing else differs: both orders are shown
    parts = []
    if _orientation_text(first) != _orientation_text(second):
        parts.append(f"orientation {_orientation_text(first)} and {_orientation_text(second)}")
        if turned is not second:
            parts.append("with the axes turned")
    for what, words in (
        ("voxels", _shape_text),
        ("spacing", spacing_text),
        ("first voxel at", _origin_text),
    ):
        if words(first) != words(turned):
            parts.append(f"{what} {words(first)} and {words(turned)}")
    if first.shape == turned.shape:
        parts.append(f"corners up to {grid_difference_mm(first, turned):.3g} mm apart")
    return (
        f"{names[0]} and {names[1]} are on different grids ({'; '.join(parts)}): "
        f"{_repair(first, turned, names)}"
    )


def _repair(first: Grid, second: Grid, names: tuple[str, str]) -> str:
    """Advice on two grids that differ."""
    if len(first.shape) != len(second.shape):
        return "give two volumes or two 2D images"
    if turn_onto(second, first) is not None:  # an image: labels are turned when they are read
        return f"store {names[1]} with the axes of {names[0]}, which changes no voxel"
    resample = f"resample {names[1]} to the grid of {names[0]}, a label by nearest neighbour"
    if first.shape != second.shape or spacing_text(first) != spacing_text(second):
        return resample
    return f"correct the header that is wrong or, if both are right, {resample}"


def _shape_text(grid: Grid) -> str:
    return " x ".join(map(str, grid.shape))


def _orientation_text(grid: Grid) -> str:
    is_known = bool(np.isfinite(grid.affine_ras).all())
    return grid.orientation[: len(grid.shape)] if is_known else "unknown"


def _origin_text(grid: Grid) -> str:
    shown = (f"{at:.6g}" for at in np.round(grid.affine_ras[:3, 3], 3) + 0.0)
    return f"({', '.join(shown)}) mm"


@dataclass(frozen=True)
class Turn:
    """Permutation and flips of axes, which move voxels and change none.

    Attributes:
        order: Axis before the turn that becomes each axis.
        flips: Axes after the permutation whose voxels are reversed, in growing order.
    """

    order: tuple[int, ...]
    flips: tuple[int, ...]

    @property
    def is_identity(self) -> bool:
        """True if it moves no voxel."""
        return not self.flips and self.order == tuple(range(len(self.order)))

    def grid(self, source: Grid) -> Grid:
        """The grid of an image after the turn."""
        order = [*self.order, *range(len(self.order), 3)]
        affine = source.affine_ras.copy()
        affine[:3, :3] = source.affine_ras[:3, order]
        shape = tuple(source.shape[axis] for axis in self.order)
        for axis in self.flips:
            affine[:3, 3] += affine[:3, axis] * (shape[axis] - 1)
            affine[:3, axis] *= -1
        return Grid(shape, affine)

    def turned(self, array: npt.NDArray[AnyType]) -> npt.NDArray[AnyType]:
        """The voxels after the turn, as a view of `array`.

        Args:
            array: `[C, *spatial]`.
        """
        moved = np.transpose(array, (0, *(axis + 1 for axis in self.order)))
        return np.flip(moved, tuple(axis + 1 for axis in self.flips))


def turn_onto(source: Grid, target: Grid) -> Turn | None:
    """The turn that puts each voxel of a grid onto the voxel of another at the same place.

    It follows from the two affines alone; shapes and voxels decide nothing.

    Args:
        source: Grid before the turn.
        target: Grid after it.

    Returns:
        The turn; None if the grids differ in more than the order and direction of their axes, by
        the tolerance of `same_grid`.
    """
    if same_grid(source, target):
        return Turn(tuple(range(len(target.shape))), ())
    turn = nearest_turn(source, target)
    return turn if turn is not None and same_grid(turn.grid(source), target) else None


def nearest_turn(source: Grid, target: Grid) -> Turn | None:
    """The turn after which each axis of a grid points along the same axis of another, or nearly.

    Args:
        source: Grid before the turn.
        target: Grid whose axes are to be met; its shape and origin play no part.

    Returns:
        The turn; None if two axes are nearest to one, or the grids have other numbers of axes.
    """
    axes = len(target.shape)
    is_known = np.isfinite(source.affine_ras).all() and np.isfinite(target.affine_ras).all()
    if len(source.shape) != axes or not is_known:
        return None
    steps = np.linalg.pinv(source.affine_ras[:3, :axes]) @ target.affine_ras[:3, :axes]
    order = tuple(int(axis) for axis in np.argmax(np.abs(steps), axis=0))
    if len(set(order)) != axes:
        return None
    return Turn(order, tuple(axis for axis in range(axes) if steps[order[axis], axis] < 0))


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
