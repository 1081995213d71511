"""Voxels of each class of a case, found once, so that patches can be centred on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FOREGROUND_POINTS = 20_000
"""Most voxels remembered for each class of a case."""

FOREGROUND_POINTS_IN_ALL = 200_000
"""Most voxels remembered for all classes of a case, however many there are."""


def foreground_points(
    label: npt.NDArray[Any], ignore_index: int | None = None
) -> tuple[tuple[int, ...], tuple[npt.NDArray[np.int64], ...]]:
    """Classes of a label map, and evenly spaced voxels of each, in one pass over the voxels.

    Args:
        label: Class indices, any shape.
        ignore_index: Class index of voxels that were not annotated, larger than all others.

    Returns:
        The class indices other than 0 in growing order, and for each of them flat indices of its
        voxels in growing order; for `ignore_index` those of all annotated voxels, if there are any.
    """
    flat = label.ravel()
    filled = np.flatnonzero(flat)
    by_class = filled[np.argsort(flat[filled], kind="stable")]
    if not by_class.size:
        return (), ()
    ends = np.flatnonzero(np.diff(flat[by_class])) + 1
    groups = np.split(by_class, ends)
    classes = tuple(int(flat[found[0]]) for found in groups)
    if ignore_index is not None and classes[-1] == ignore_index:
        annotated = np.flatnonzero(flat != ignore_index)
        groups[-1] = annotated if annotated.size else groups[-1]
    limit = min(FOREGROUND_POINTS, max(1, FOREGROUND_POINTS_IN_ALL // len(groups)))
    kept = tuple(found[:: max(1, len(found) // limit)] for found in groups)
    return classes, kept
