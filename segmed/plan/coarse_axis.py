"""Spacing of an axis along which the images are much coarser than along the others.

Slices that were cut or reconstructed thinly in some cases have detail that the median spacing loses
for all. Where such an axis has few samples, a finer spacing costs little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segmed.plan.fingerprint import Fingerprint
from segmed.plan.recipe import COARSE_AXIS_RATIO

FEW_SAMPLES = 3.0
"""An axis has few samples if each other one has more than so many times as many."""


@dataclass(frozen=True)
class OwnGrid:
    """Grid of the images that a plan starts from.

    Attributes:
        spacing_mm: Voxel edge along each axis, in mm.
        growth: Voxels along each axis, as a multiple of those of the median image.
        why: The reason, where an axis has another spacing than the median; else empty.
    """

    spacing_mm: tuple[float, ...]
    growth: tuple[float, ...]
    why: str = ""


def own_grid(facts: Fingerprint, *, slice_axis: int | None = None) -> OwnGrid:
    """Median spacing, on a coarse axis with few samples the 10th percentile.

    Args:
        facts: The fingerprint.
        slice_axis: Axis that a 2D network walks along; it keeps the median, since no detail along
            it enters the network.

    Source:
        Isensee et al. 2021, Nature Methods 18, supplementary note 2: target spacing.
    """
    median = facts.median_spacing_mm
    same = OwnGrid(median, (1.0,) * len(median))
    axis = max(range(len(median)), key=lambda axis: median[axis])
    if not facts.tenth_spacing_mm or axis == slice_axis or facts.is_raster:
        return same
    others = [other for other in range(len(median)) if other != axis]
    finest = max(median[other] for other in others)
    samples = min(facts.median_shape[other] for other in others)
    is_coarse = median[axis] > COARSE_AXIS_RATIO * finest
    if not is_coarse or facts.median_shape[axis] * FEW_SAMPLES >= samples:
        return same
    chosen = max(facts.tenth_spacing_mm[axis], finest)
    if chosen >= median[axis]:
        return same
    spacing_mm = list(median)
    spacing_mm[axis] = chosen
    return OwnGrid(
        spacing_mm=tuple(spacing_mm),
        growth=tuple(float(n) for n in np.divide(median, spacing_mm)),
        why=(
            f"axis {axis} has the 10th percentile of the spacings, {chosen:g} mm, instead of the "
            f"median {median[axis]:g} mm: voxels are {median[axis] / finest:.1f} times longer "
            f"along it than along the others, and it has {facts.median_shape[axis]:.0f} samples "
            f"against {samples:.0f}"
        ),
    )
