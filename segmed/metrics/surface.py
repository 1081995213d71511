"""Distances between the surfaces of two masks, in millimetres, and the scores made of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import floor

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from segmed.metrics.padded_box import (
    Distances,
    Mask,
    PaddedBox,
    Places,
    search_shells,
    shells_within,
    steps_off,
)

SHELL_OVERHEAD = 3000
"""Cost of starting on one shell, in look-ups of one voxel (about 2.5 ns)."""

TREE_BUILD_LOOKUPS = 60
"""Cost of putting one point into a tree, in look-ups of one voxel."""

TREE_QUERY_LOOKUPS = 900
"""Cost of one question to a tree, in look-ups of one voxel."""

TREE_LEAF_POINTS = 32
"""Points in a leaf of the tree: large leaves build and answer faster here than scipy's 10."""

FADING = 0.8
"""Weight of what earlier shells cost and settled against the latest."""

TILE_VOXELS = 64
"""Least side of the tiles in which wide bands are measured, in voxels."""

TREE_POINTS_AT_ONCE = 1 << 18
"""Questions asked of a tree at once, so that coordinates cost little memory."""


@dataclass(frozen=True)
class SurfaceDistances:
    """Distance of every surface voxel of one mask to the nearest surface voxel of the other.

    Attributes:
        from_prediction_mm: One distance for each surface voxel of the prediction, in mm.
        from_reference_mm: One distance for each surface voxel of the reference, in mm.
    """

    from_prediction_mm: Distances
    from_reference_mm: Distances


def surface_distances(prediction: Places, reference: Places, padded: PaddedBox) -> SurfaceDistances:
    """Exact distances between two surfaces, both ways.

    Args:
        prediction: Surface voxels of the prediction, flat indices, at least one.
        reference: Surface voxels of the reference, flat indices, at least one.
        padded: The padded box of both.

    Returns:
        Both sets of distances.
    """
    occupied = padded.blank()
    occupied[reference] = True
    forth = nearest_mm(prediction, reference, occupied, padded)
    occupied[reference] = False
    occupied[prediction] = True
    return SurfaceDistances(forth, nearest_mm(reference, prediction, occupied, padded))


def nearest_mm(queries: Places, targets: Places, occupied: Mask, padded: PaddedBox) -> Distances:
    """Distance from each query voxel to the nearest target voxel, in mm.

    Neighbours are tried shell by shell, nearest first, which settles nearly all voxels of a good
    segmentation. Once shells settle too few for what they cost, a k-d tree answers the rest. Both
    are exact.

    Args:
        queries: Flat indices of the query voxels.
        targets: Flat indices of the voxels that are sought.
        occupied: Flat mask of the targets.
        padded: The padded box of all.

    Returns:
        One distance for each query.
    """
    distances = np.empty(queries.size)
    waiting, places = np.arange(queries.size), queries
    shells = search_shells(padded.spacing_mm)
    steps = padded.flat_steps(shells.offsets)
    spent, gain, start = 0.0, 0.0, 0
    for stop in shells.ends:
        cost = SHELL_OVERHEAD + (stop - start) * places.size
        tree = TREE_BUILD_LOOKUPS * targets.size + TREE_QUERY_LOOKUPS * places.size
        if places.size == 0 or spent + cost > max(tree / 8, gain) + 3 * SHELL_OVERHEAD:
            break
        hit = occupied[places + steps[start]]
        for step in steps[start + 1 : stop]:
            hit |= occupied[places + step]
        distances[waiting[hit]] = shells.distances_mm[start]
        rest = ~hit
        waiting, settled = waiting[rest], places.size
        places = places[rest]
        gain = FADING * gain + TREE_QUERY_LOOKUPS * (settled - places.size)
        spent, start = FADING * spent + cost, stop
    if places.size:
        distances[waiting] = _ask_tree(places, targets, padded)
    return distances


def _ask_tree(queries: Places, targets: Places, padded: PaddedBox) -> Distances:
    points = padded.points_mm(targets)
    tree = cKDTree(points, TREE_LEAF_POINTS, compact_nodes=False, balanced_tree=False)
    distances = np.empty(queries.size)
    for start in range(0, queries.size, TREE_POINTS_AT_ONCE):
        part = slice(start, start + TREE_POINTS_AT_ONCE)
        distances[part] = tree.query(padded.points_mm(queries[part]))[0]
    return distances


def hausdorff_mm(distances: SurfaceDistances, percentile: float = 100.0) -> float:
    """Hausdorff distance: the larger of the two directed percentiles, in mm.

    Args:
        distances: Both directions; neither empty.
        percentile: 100 for the maximum, 95 for HD95; numpy's linear rule between ranks.

    Returns:
        Distance in mm.

    Source:
        Huttenlocher et al. 1993, TPAMI 15(9), eq. 1-2; percentile by direction, then the larger.
    """
    both = (distances.from_prediction_mm, distances.from_reference_mm)
    return max(float(np.percentile(one, percentile)) for one in both)


def assd_mm(distances: SurfaceDistances) -> float:
    """Average symmetric surface distance: the mean over all distances of both directions, in mm.

    Source:
        Heimann et al. 2009, TMI 28(8), "average symmetric surface distance".
    """
    forth, back = distances.from_prediction_mm, distances.from_reference_mm
    return float((forth.sum() + back.sum()) / (forth.size + back.size))


def nsd(distances: SurfaceDistances, tolerance_mm: float) -> float:
    """Normalised surface distance: the part of both surfaces within a tolerance of the other.

    Surface is counted in voxels, not in area.

    Source:
        Nikolov et al. 2021, JMIR 23(7), "surface Dice"; counted in voxels as MONAI does.
    """
    forth, back = distances.from_prediction_mm, distances.from_reference_mm
    limit = tolerance_mm * (1 + 1e-12)
    within = np.count_nonzero(forth <= limit) + np.count_nonzero(back <= limit)
    return float(within / (forth.size + back.size))


def band_places(mask: Mask, surface: Places, padded: PaddedBox, width_mm: float) -> Places:
    """Voxels of a mask at most `width_mm` inside its surface voxels.

    Args:
        mask: Flat mask over the padded box.
        surface: Flat indices of its surface voxels.
        padded: The padded box, with a rim for this width (`padded_box_for`).
        width_mm: Depth of the band in mm; the surface voxels themselves have depth 0.

    Returns:
        Sorted flat indices.
    """
    if not steps_off(width_mm, padded.spacing_mm):
        return _deep_band_places(mask, surface, padded, width_mm)
    band = padded.blank()
    for step in padded.flat_steps(shells_within(padded.spacing_mm, width_mm).offsets):
        places = surface + step
        band[places[mask[places]]] = True
    return np.flatnonzero(band)


def _deep_band_places(mask: Mask, surface: Places, padded: PaddedBox, width_mm: float) -> Places:
    """The band by distance transforms of tiles with a halo as wide as the band."""
    border = padded.blank()
    border[surface] = True
    solid, border = mask.reshape(padded.shape), border.reshape(padded.shape)
    band = np.zeros(padded.shape, dtype=bool)
    halo = [floor(width_mm / edge) + 1 for edge in padded.spacing_mm]
    sides = [max(TILE_VOXELS, 2 * n) for n in halo]
    grid = [range(0, n, side) for n, side in zip(padded.shape, sides, strict=True)]
    for corner in product(*grid):
        tile = tuple(slice(a, a + n) for a, n in zip(corner, sides, strict=True))
        around = tuple(
            slice(max(0, a - h), a + n + h) for a, n, h in zip(corner, sides, halo, strict=True)
        )
        if not (solid[tile].any() and border[around].any()):
            continue
        far_mm = ndimage.distance_transform_edt(~border[around], sampling=padded.spacing_mm)
        inner = tuple(
            slice(t.start - o.start, t.start - o.start + n)
            for t, o, n in zip(tile, around, solid[tile].shape, strict=True)
        )
        band[tile] = solid[tile] & (far_mm[inner] <= width_mm * (1 + 1e-12))
    return np.flatnonzero(band)


def boundary_iou(prediction: Places, reference: Places, padded: PaddedBox) -> float:
    """IoU of the two bands along the surfaces.

    Args:
        prediction: Band of the prediction, flat indices.
        reference: Band of the reference, flat indices.
        padded: The padded box of both.

    Returns:
        Score in 0..1.

    Source:
        Cheng et al. 2021, CVPR, "Boundary IoU", eq. 2, with the width in mm.
    """
    marked = padded.blank()
    marked[prediction] = True
    common = int(np.count_nonzero(marked[reference]))
    return common / (prediction.size + reference.size - common)
