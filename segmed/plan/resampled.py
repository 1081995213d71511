"""Effects of a plan's spacing on each training case: sizes out of bounds, structures lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from segmed.errors import ImageError, ManifestError
from segmed.io.read import as_label, load_label
from segmed.manifest.resampled import is_at_risk, lost_values, size_fault, target_of
from segmed.manifest.schema import Case, Manifest
from segmed.plan.case_facts import CaseFacts
from segmed.plan.schema import Preprocessing

SHOWN = 3
"""Cases that the sentence about losses names."""


def lost_structures(
    manifest: Manifest,
    facts: Sequence[CaseFacts],
    preprocessing: Preprocessing,
    *,
    workers: int = 2,
) -> dict[str, tuple[str, ...]]:
    """Structures of which resampling leaves no voxel.

    Args:
        manifest: The image set.
        facts: One a training case, in the manifest's order.
        preprocessing: The plan's.
        workers: Label maps read at once.

    Returns:
        Names of the structures by case id; only cases that lose some.

    Raises:
        ManifestError: A case would have a size out of all bounds.
    """
    suspects: list[tuple[Case, CaseFacts]] = []
    for case, fact in zip(manifest.training, facts, strict=True):
        box = fact.box if preprocessing.crop_nonzero else None
        if fault := size_fault(fact.grid, preprocessing.spacing_mm, box):
            raise ManifestError(f"case {case.id}: {fault}; `segmed manifest check` lists all such")
        shape = tuple(stop - start for start, stop in fact.box) if box else fact.grid.shape
        if is_at_risk(fact.extents, shape, target_of(fact.grid, preprocessing.spacing_mm, box)):
            suspects.append((case, fact))
    with ThreadPoolExecutor(max_workers=max(workers, 1)) as pool:
        found = pool.map(lambda one: _lost(manifest, one[0], one[1], preprocessing), suspects)
    pairs = zip(suspects, found, strict=True)
    return {case.id: names for (case, _), names in pairs if names}


def _lost(
    manifest: Manifest, case: Case, fact: CaseFacts, preprocessing: Preprocessing
) -> tuple[str, ...]:
    path = manifest.label_path(case)
    if path is None:
        return ()
    try:
        values = np.asarray(as_label(load_label(path, grid=fact.grid)))[0]
    except ImageError as error:
        raise ManifestError(f"case {case.id}: {error}") from error
    box = fact.box if preprocessing.crop_nonzero else None
    lost = lost_values(values, target_of(fact.grid, preprocessing.spacing_mm, box), box)
    return tuple(label.name for label in manifest.labels if label.value in lost)


def losses_in_words(lost: dict[str, tuple[str, ...]]) -> str:
    """One sentence about lost structures: how many, which, and in which cases first."""
    counts = Counter(name for names in lost.values() for name in names)
    structures = ", ".join(f"{name} in {count}" for name, count in sorted(counts.items()))
    shown = ", ".join(list(lost)[:SHOWN]) + (", ..." if len(lost) > SHOWN else "")
    return (
        f"{sum(counts.values())} structures of {len(lost)} cases have no voxel left at this "
        f"spacing and are not trained on ({structures}; cases {shown}): choose a finer spacing if "
        "they matter"
    )
