"""Turns of one grid onto another, and the words for two grids that differ."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from segmed.errors import GeometryError
from segmed.geometry import (
    AFFINE_TOLERANCE_MM,
    Grid,
    grid_difference,
    require_same_grid,
    same_grid,
    turn_onto,
)

NAMES = ("the image", "its label")


def rotation(angles: tuple[float, float, float]) -> np.ndarray:
    return np.asarray(Rotation.from_euler("xyz", angles, degrees=True).as_matrix())


def grid(shape: tuple[int, ...], spacing_mm: tuple[float, ...] = (0.8, 1.1, 2.5)) -> Grid:
    """An oblique grid; of a 2D image, its plane is that of the patient's axes."""
    affine = np.eye(4)
    axes = rotation((12.0, -33.0, 71.0)) if len(shape) == 3 else np.eye(3)
    affine[:3, :3] = axes * np.array([*spacing_mm[: len(shape)], 1.0][:3])
    affine[:3, 3] = (-31.5, 12.25, 7.125)
    return Grid(shape, affine)


def stored_otherwise(whole: Grid) -> Iterator[tuple[np.ndarray, Grid]]:
    """The numbered voxels of a grid `[1, *spatial]`, in each order and direction of its axes.

    The new affine is that of the voxel indices: column by column, from the old place of each.
    """
    dims = len(whole.shape)
    numbers = np.arange(np.prod(whole.shape)).reshape(whole.shape)
    for order, signs in product(permutations(range(dims)), product((1, -1), repeat=dims)):
        steps = tuple(slice(None, None, sign) for sign in signs)
        values = numbers.transpose(order)[steps]
        index_of = np.eye(4)
        index_of[:dims, :dims] = 0.0
        for axis, (old, sign) in enumerate(zip(order, signs, strict=True)):
            index_of[old, axis] = sign
            index_of[old, 3] = 0 if sign > 0 else whole.shape[old] - 1
        yield values[None], Grid(values.shape, whole.affine_ras @ index_of)


@pytest.mark.parametrize("shape", [(4, 3, 2), (3, 3, 3), (5, 1, 4), (4, 3), (3, 3)])
def test_each_order_and_direction_of_axes_is_turned_back(shape: tuple[int, ...]) -> None:
    whole = grid(shape)
    numbers = np.arange(np.prod(shape)).reshape(1, *shape)
    stored = list(stored_otherwise(whole))
    assert len(stored) == {2: 8, 3: 48}[len(shape)]
    for values, place in stored:
        turn = turn_onto(place, whole)
        assert turn is not None
        assert same_grid(turn.grid(place), whole)
        np.testing.assert_array_equal(turn.turned(values), numbers)
        assert np.shares_memory(turn.turned(values), values)


def moved(affine_ras: np.ndarray, by_mm: float) -> np.ndarray:
    far = affine_ras.copy()
    far[:3, 3] += by_mm * affine_ras[:3, 0] / np.linalg.norm(affine_ras[:3, 0])
    return far


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("shape", [(4, 3, 2), (3, 3, 3), (4, 3)])
def test_whatever_else_differs_is_not_turned(shape: tuple[int, ...], flips: bool) -> None:
    whole = grid(shape)
    place = [one for _, one in stored_otherwise(whole)][-1 if flips else 0]
    dims, shape = len(shape), place.shape
    coarse = place.affine_ras.copy()
    coarse[:3, 0] *= 1.5
    skewed = place.affine_ras.copy()
    skewed[:3, :3] = rotation((0.0, 0.0, 45.0)) @ skewed[:3, :3]
    unknown = place.affine_ras.copy()
    unknown[0, 0] = np.nan
    others = [
        Grid(shape, moved(place.affine_ras, 0.4)),  # half a voxel
        Grid(shape, moved(place.affine_ras, 2 * AFFINE_TOLERANCE_MM)),
        Grid(shape, coarse),
        Grid(shape, skewed),
        Grid((shape[0] + 1, *shape[1:]), place.affine_ras),
        Grid((*shape, 1) if dims == 2 else shape[:2], place.affine_ras),
        Grid(shape, unknown),
        Grid(shape, np.zeros((4, 4))),
    ]
    assert [turn_onto(other, whole) for other in others] == [None] * len(others)
    near = Grid(shape, moved(place.affine_ras, AFFINE_TOLERANCE_MM / 2))
    assert turn_onto(near, whole) is not None


def test_shapes_alone_turn_nothing() -> None:
    whole = grid((4, 3, 2))
    swapped = Grid((3, 4, 2), whole.affine_ras)  # fits by its shape, not by its affine
    assert turn_onto(swapped, whole) is None


@pytest.mark.parametrize(
    ("change", "words", "repair"),
    [
        ({"shape": (4, 3, 3)}, "voxels 4 x 3 x 2 and 4 x 3 x 3", "resample its label to the grid"),
        ({"spacing": 2}, "spacing 1 x 1 x 3 mm and 2 x 1 x 3 mm", "by nearest neighbour"),
        ({"origin": 4.0}, "first voxel at (0, 0, 0) mm and (4, 0, 0) mm", "correct the header"),
        ({"origin": 4.0}, "corners up to 4 mm apart", "correct the header"),
        ({"flip": 1}, "orientation RAS and RPS; with the axes turned; first voxel", "correct the"),
        ({"flip": 1}, "at (0, 0, 0) mm and (0, -2, 0) mm; corners up to 2 mm apart", "correct the"),
        ({"flip": 1, "spacing": 2}, "spacing 1 x 1 x 3 mm and 2 x 1 x 3 mm", "resample its label"),
        ({"flip": 1, "origin_y": 2.0}, "orientation RAS and RPS", "which changes no voxel"),
        ({"shape": (4, 3)}, "voxels 4 x 3 x 2 and 4 x 3;", "two volumes or two 2D images"),
        ({"nan": True}, "orientation RAS and unknown", "resample"),
    ],
)
def test_a_difference_is_told_with_both_values_and_the_repair(
    change: dict[str, object], words: str, repair: str
) -> None:
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    other = affine.copy()
    other[0, 0] *= float(change.get("spacing", 1))
    other[0, 3] = float(change.get("origin", 0.0))
    other[1, 3] = float(change.get("origin_y", 0.0))
    if "flip" in change:
        other[1, 1] = -1.0
    if "nan" in change:
        other[0, 0] = np.nan
    first, second = Grid((4, 3, 2), affine), Grid(change.get("shape", (4, 3, 2)), other)
    told = grid_difference(first, second, names=NAMES)
    assert told.startswith("the image and its label are on different grids (")
    assert words in told
    assert repair in told
    assert "\n" not in told
    with pytest.raises(GeometryError) as caught:
        require_same_grid(first, second, names=NAMES)
    assert str(caught.value) == told
    assert caught.value.reason == "other_grid"


def test_only_what_differs_is_told() -> None:
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    shifted = affine.copy()
    shifted[0, 3] = 0.002
    told = grid_difference(Grid((4, 3, 2), affine), Grid((4, 3, 2), shifted), names=NAMES)
    assert "corners up to 0.002 mm apart" in told
    assert "spacing" not in told
    assert "orientation" not in told
    require_same_grid(
        Grid((4, 3, 2), affine), Grid((4, 3, 2), shifted), names=NAMES, tolerance_mm=0.01
    )
