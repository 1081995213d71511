"""Faults that are visible only between cases: copies, and values far from all others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segmed.manifest.faults import CaseRecord, ManifestFault, note
from segmed.manifest.resampled import world_spacing
from segmed.manifest.schema import Manifest

SPACING_FACTOR = 2.0
"""A voxel edge this many times above or below the median is an outlier."""

LEVEL_DEVIATIONS = 8.0
"""A mean intensity this many robust standard deviations from the median is an outlier."""

MAD_TO_STD = 1.4826
"""Median absolute deviation to standard deviation, for normal values."""

MIN_CASES = 5
"""With fewer cases nothing counts as an outlier."""


def duplicates(records: Sequence[CaseRecord]) -> list[ManifestFault]:
    """An error for every image whose voxels are those of an earlier case."""
    first: dict[str, str] = {}
    faults = []
    for record in records:
        if record.content is None:
            continue
        original = first.setdefault(record.content, record.case_id)
        if original != record.case_id:
            message = f"the same voxels as case {original!r}; keep one of them"
            faults.append(ManifestFault(record.case_id, "duplicate", message))
    return faults


def outliers(manifest: Manifest, records: Sequence[CaseRecord]) -> list[ManifestFault]:
    """Notes on images whose spacing or mean intensity is far from all others."""
    readable = [record for record in records if record.grid is not None and record.levels]
    if len(readable) < MIN_CASES:
        return []
    return _spacing(readable) + _levels(manifest, readable)


def _spacing(records: Sequence[CaseRecord]) -> list[ManifestFault]:
    grids = [record.grid for record in records if record.grid is not None]
    edges = [np.asarray(world_spacing(grid)) for grid in grids]
    num_axes = max(len(one) for one in edges)
    usual = np.median([one for one in edges if len(one) == num_axes], axis=0)
    faults = []
    for record, one in zip(records, edges, strict=True):
        if len(one) != num_axes:
            message = f"{len(one)} axes, the other images have {num_axes}"
            faults.append(ManifestFault(record.case_id, "other_dimensions", message))
            continue
        ratio = one / usual
        if ratio.max() > SPACING_FACTOR or ratio.min() < 1 / SPACING_FACTOR:
            message = f"voxels of {_mm(one)} mm, the median is {_mm(usual)} mm"
            faults.append(note(record.case_id, "spacing_outlier", message))
    return faults


def _mm(edges: np.ndarray) -> str:
    return " x ".join(f"{edge:.3g}" for edge in edges)


def _levels(manifest: Manifest, records: Sequence[CaseRecord]) -> list[ManifestFault]:
    faults = []
    for number, channel in enumerate(manifest.channels):
        holders = [record for record in records if len(record.levels) > number]
        if len(holders) < MIN_CASES:
            continue
        levels = np.array([record.levels[number] for record in holders])
        middle = np.median(levels)
        spread = MAD_TO_STD * np.median(np.abs(levels - middle))
        if spread == 0:
            continue
        for record, level in zip(holders, levels, strict=True):
            if abs(level - middle) > LEVEL_DEVIATIONS * spread:
                message = f"channel {channel.name} has mean {level:.4g}, the median is {middle:.4g}"
                faults.append(note(record.case_id, "intensity_outlier", message))
    return faults
