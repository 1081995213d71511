"""Connected components of two masks, and how they match."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, maximum_bipartite_matching

from segmed.metrics.overlap import ratio
from segmed.metrics.padded_box import Mask, PaddedBox, Places
from segmed.metrics.pair import VOXELS_AT_ONCE

Counted = npt.NDArray[np.int64]

DETECTION_IOU_TENTHS = 1
"""A component is detected at an IoU of at least 1/10, as nnDetection requires of lesions in 3D."""


@dataclass(frozen=True)
class Components:
    """Connected components (full neighbourhood) of a mask, as runs of voxels.

    Attributes:
        starts: First flat index of each run, ascending.
        stops: One past the last flat index of each run.
        component: Number of the component of each run, from 0.
        sizes: Voxels of each component.
    """

    starts: Places
    stops: Places
    component: Places
    sizes: Counted


@dataclass(frozen=True)
class LesionScores:
    """Lesion-wise scores: matching of the connected components of two masks.

    Attributes:
        prediction: Components in the prediction.
        reference: Components in the reference.
        matched: Pairs matched one to one at IoU >= 0.1, as many as can be.
        f1: 2 matched / (prediction + reference).
        panoptic_quality: Sum of IoU over pairs above 0.5, divided by TP + FP/2 + FN/2.
    """

    prediction: int
    reference: int
    matched: int
    f1: float
    panoptic_quality: float


def components_of(mask: Mask, padded: PaddedBox) -> Components:
    """Connected components; voxels that share a face, an edge or a corner are connected.

    Args:
        mask: Flat mask over the padded box, its rim empty.
        padded: The padded box.

    Returns:
        The runs of the mask and the component of each.
    """
    changes = [
        np.flatnonzero(mask[a : a + VOXELS_AT_ONCE] != mask[a - 1 : a - 1 + len_]) + a
        for a in range(1, mask.size, VOXELS_AT_ONCE)
        for len_ in [min(VOXELS_AT_ONCE, mask.size - a)]
    ]
    turns = np.concatenate(changes)
    starts, stops = turns[0::2], turns[1::2]
    firsts, seconds = [], []
    for step in _rows_before(padded):
        low = np.searchsorted(stops, starts - step, side="left")
        high = np.searchsorted(starts, stops - step, side="right")
        first, second = _expand(low, high)
        firsts.append(first)
        seconds.append(second)
    rows, columns = np.concatenate(firsts), np.concatenate(seconds)
    links = coo_matrix((np.ones(rows.size), (rows, columns)), shape=(starts.size,) * 2)
    count, component = connected_components(links.tocsr(), directed=False)
    sizes = np.bincount(component, weights=stops - starts, minlength=count).astype(np.int64)
    return Components(starts, stops, component, sizes)


def match_lesions(prediction: Components, reference: Components) -> LesionScores:
    """Match components of the prediction with those of the reference.

    Args:
        prediction: Components of the prediction.
        reference: Components of the reference, in the same padded box.

    Returns:
        Counts and scores; NaN where neither has a component.

    Source:
        Panoptic quality: Kirillov et al. 2019, CVPR, eq. 1. Detection at IoU 0.1: Baumgartner et
        al. 2021, MICCAI (nnDetection).
    """
    low = np.searchsorted(reference.stops, prediction.starts, side="right")
    high = np.searchsorted(reference.starts, prediction.stops, side="left")
    p, r = _expand(low, high)
    lengths = np.minimum(prediction.stops[p], reference.stops[r])
    lengths -= np.maximum(prediction.starts[p], reference.starts[r])
    count_p, count_r = prediction.sizes.size, reference.sizes.size
    pair_of = prediction.component[p].astype(np.int64) * count_r + reference.component[r]
    pairs, where = np.unique(pair_of, return_inverse=True)
    common = np.bincount(where, weights=lengths, minlength=pairs.size).astype(np.int64)
    rows, columns = np.divmod(pairs, max(count_r, 1))
    union = prediction.sizes[rows] + reference.sizes[columns] - common
    near = 10 * common >= DETECTION_IOU_TENTHS * union
    matched = _most_pairs(rows[near], columns[near], (count_p, count_r))
    same = 2 * common > union
    overlap = float((common[same] / union[same]).sum())
    return LesionScores(
        prediction=count_p,
        reference=count_r,
        matched=matched,
        f1=ratio(2 * matched, count_p + count_r),
        panoptic_quality=ratio(2 * overlap, count_p + count_r),
    )


def _most_pairs(rows: Counted, columns: Counted, shape: tuple[int, int]) -> int:
    """Return the size of the largest matching in which no row and no column is used twice."""
    if rows.size == np.unique(rows).size == np.unique(columns).size:
        return int(rows.size)
    graph = coo_matrix((np.ones(rows.size, bool), (rows, columns)), shape=shape)
    return int((maximum_bipartite_matching(graph.tocsr()) >= 0).sum())


def _rows_before(padded: PaddedBox) -> list[int]:
    """Flat steps back to each neighbouring row that comes before."""
    if len(padded.steps) == 2:
        return [padded.steps[0]]
    plane, row, _ = padded.steps
    return [row, plane - row, plane, plane + row]


def _expand(low: Places, high: Places) -> tuple[Places, Places]:
    """All pairs (i, j) with low[i] <= j < high[i]."""
    count = np.maximum(high - low, 0)
    first = np.repeat(np.arange(low.size), count)
    second = np.arange(first.size) - np.repeat(np.cumsum(count) - count, count) + low[first]
    return first, second
