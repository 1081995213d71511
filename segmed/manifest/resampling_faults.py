"""Cases that the median spacing of a set does not suit, as the audit reports them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from segmed.errors import ImageError
from segmed.io.read import as_label, load_label
from segmed.manifest.faults import CaseRecord, ManifestFault, note
from segmed.manifest.resampled import (
    is_at_risk,
    lost_values,
    size_fault,
    target_of,
    world_spacing,
)
from segmed.manifest.schema import Manifest


def resampling_faults(
    manifest: Manifest, records: Sequence[CaseRecord], *, workers: int = 2
) -> list[ManifestFault]:
    """An error for each size out of all bounds, a note for each case that loses structures.

    Args:
        manifest: What is checked.
        records: One a case, training cases first, as `check_case` gave them.
        workers: Label maps read at once.
    """
    median = _median_spacing(records[: len(manifest.training)])
    if not median:
        return []
    faults, suspects = [], []
    for record in records:
        if record.grid is None or len(record.grid.shape) != len(median):
            continue
        if fault := size_fault(record.grid, median):
            faults.append(ManifestFault(record.case_id, "absurd_spacing", fault))
        elif is_at_risk(record.extents, record.grid.shape, target_of(record.grid, median)):
            suspects.append(record)
    paths = {case.id: manifest.label_path(case) for case in (*manifest.training, *manifest.test)}
    names = {label.value: label.name for label in manifest.labels}
    with ThreadPoolExecutor(max_workers=max(workers, 1)) as pool:
        found = pool.map(lambda one: _losses(one, paths[one.case_id], names, median), suspects)
    return faults + [one for one in found if one is not None]


def _median_spacing(records: Sequence[CaseRecord]) -> tuple[float, ...]:
    """Median voxel edges over the training cases, by world axes; empty without any."""
    edges = [world_spacing(record.grid) for record in records if record.grid is not None]
    num_axes = max((len(one) for one in edges), default=0)
    alike = [one for one in edges if len(one) == num_axes]
    return tuple(float(edge) for edge in np.median(alike, axis=0)) if alike else ()


def _losses(
    record: CaseRecord, path: Path | None, names: Mapping[int, str], median: Sequence[float]
) -> ManifestFault | None:
    """A note on a case whose structures the median spacing loses."""
    if record.grid is None or path is None:
        return None
    try:
        values = np.asarray(as_label(load_label(path, grid=record.grid)))[0]
    except ImageError:
        return None  # it was read a moment ago; its own faults are reported
    if values.shape != record.grid.shape:
        return None
    lost = lost_values(values, target_of(record.grid, median))
    shown = ", ".join(f"{names[v]} ({n} voxels)" for v, n in lost.items() if v in names)
    if not shown:
        return None
    edges = " x ".join(f"{edge:.3g}" for edge in median)
    return note(
        record.case_id,
        "lost_structure",
        f"no voxel is left at the median spacing of {edges} mm: {shown}; a plan of that spacing "
        "trains without it",
    )
