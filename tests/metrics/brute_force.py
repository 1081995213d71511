"""Every score again, the slow and obvious way: distances between all pairs of voxels."""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy import ndimage, optimize


def surface(mask):
    """Voxels with a background face neighbour, one by one; outside is background."""
    border = np.zeros_like(mask)
    for voxel in np.argwhere(mask):
        for axis, step in product(range(mask.ndim), (-1, 1)):
            neighbour = voxel.copy()
            neighbour[axis] += step
            is_outside = not 0 <= neighbour[axis] < mask.shape[axis]
            if is_outside or not mask[tuple(neighbour)]:
                border[tuple(voxel)] = True
    return border


def all_distances(first, second, spacing_mm):
    a, b = np.argwhere(first) * spacing_mm, np.argwhere(second) * spacing_mm
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))


def band(mask, width_mm, spacing_mm):
    near = all_distances(mask, surface(mask), spacing_mm).min(axis=1) <= width_mm + 1e-9
    return {tuple(voxel) for voxel in np.argwhere(mask)[near]}


def lesions(prediction, reference):
    """Panoptic quality and detection F1 from instance maps and all pairs of components."""
    everywhere = np.ones((3,) * prediction.ndim)
    p, num_p = ndimage.label(prediction, everywhere)
    r, num_r = ndimage.label(reference, everywhere)
    iou = np.zeros((num_p, num_r))
    for i, j in product(range(num_p), range(num_r)):
        one, other = p == i + 1, r == j + 1
        iou[i, j] = (one & other).sum() / (one | other).sum()
    matched = (iou >= 0.1 - 1e-12)[optimize.linear_sum_assignment(iou < 0.1 - 1e-12)].sum()
    return {
        "lesions_prediction": num_p,
        "lesions_reference": num_r,
        "lesions_matched": matched,
        "lesion_f1": 2 * matched / (num_p + num_r),
        "panoptic_quality": iou[iou > 0.5].sum() / ((num_p + num_r) / 2),
    }


def scores(prediction, reference, spacing_mm, tolerance_mm):
    """The scores of two masks, neither of them empty."""
    spacing = np.asarray(spacing_mm)
    common = (prediction & reference).sum()
    exact, found = common / prediction.sum(), common / reference.sum()
    between = all_distances(surface(prediction), surface(reference), spacing)
    forth, back = between.min(axis=1), between.min(axis=0)
    both = np.concatenate([forth, back])
    bands = [band(mask, tolerance_mm, spacing) for mask in (prediction, reference)]
    return {
        "dice": 2 * common / (prediction.sum() + reference.sum()),
        "iou": common / (prediction | reference).sum(),
        "precision": exact,
        "recall": found,
        "f1": 2 * exact * found / (exact + found) if common else 0.0,
        "hd_mm": both.max(),
        "hd95_mm": max(np.percentile(forth, 95), np.percentile(back, 95)),
        "assd_mm": both.mean(),
        "nsd": (both <= tolerance_mm + 1e-9).mean(),
        "boundary_iou": len(bands[0] & bands[1]) / len(bands[0] | bands[1]),
        **lesions(prediction, reference),
    }
