"""A region with holes is one closed line that fills to the region by any rule."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from segmed.io.dicom.keyhole import outlines


def filled(mask: np.ndarray, *, rule: str) -> np.ndarray:
    """Voxel centres within the outlines, by the even-odd or the winding rule."""
    centres = np.stack(np.meshgrid(*map(np.arange, mask.shape), indexing="ij"), -1).reshape(-1, 2)
    centres = centres[:, ::-1] + np.array([0.0, 1e-7])  # off the channels, which have no width
    inside = np.zeros(mask.size, dtype=bool)
    for line in outlines(mask):
        closed = np.vstack([line, line[:1]])
        if rule == "winding":
            inside |= Outline(closed).contains_points(centres)
        else:
            inside ^= crossings(closed, centres) % 2 == 1
    return inside.reshape(mask.shape)


def crossings(closed: np.ndarray, points: np.ndarray) -> np.ndarray:
    count = np.zeros(len(points), dtype=int)
    for (x0, y0), (x1, y1) in pairwise(closed):
        spans = (points[:, 1] >= min(y0, y1)) & (points[:, 1] < max(y0, y1))
        if y0 != y1:
            at = x0 + (points[:, 1] - y0) / (y1 - y0) * (x1 - x0)
            count += spans & (at > points[:, 0])
    return count


def ring() -> np.ndarray:
    mask = np.zeros((12, 14), dtype=bool)
    mask[2:10, 2:12] = True
    mask[4:8, 5:9] = False
    return mask


def sieve() -> np.ndarray:
    mask = np.ones((15, 21), dtype=bool)
    mask[2:13:2, 2:19:3] = False
    return mask


def island_in_a_hole() -> np.ndarray:
    mask = np.zeros((20, 20), dtype=bool)
    mask[1:19, 1:19], mask[4:16, 4:16], mask[7:13, 7:13] = True, False, True
    mask[9:11, 9:11] = False
    return mask


@pytest.mark.parametrize("rule", ["even-odd", "winding"])
@pytest.mark.parametrize("shape", [ring, sieve, island_in_a_hole])
def test_holes_are_left_out_by_both_rules(shape, rule: str) -> None:
    np.testing.assert_array_equal(filled(shape(), rule=rule), shape())


@pytest.mark.parametrize("seed", range(12))
def test_random_masks_come_back(seed: int) -> None:
    mask = np.random.default_rng(seed).random((17, 23)) < (0.3 + 0.05 * seed)
    np.testing.assert_array_equal(filled(mask, rule="even-odd"), mask)


def test_every_hole_is_joined_to_its_outline() -> None:
    assert len(outlines(ring())) == 1
    assert len(outlines(sieve())) == 1
    assert len(outlines(island_in_a_hole())) == 2
    assert outlines(np.zeros((4, 4), dtype=bool)) == []
