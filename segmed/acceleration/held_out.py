"""Held-out cases on which a faster way is compared with the present one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segmed.manifest import Case, Manifest
from segmed.package import ModelPackage
from segmed.package.training_cases import unseen_cases

MOST_SCORED = 60
"""Held-out cases that are scored; of more, so many are drawn."""


def chosen_cases(
    package: ModelPackage,
    manifest: Manifest,
    *,
    fold: int | None,
    cases: Sequence[Case | str] | None,
    seed: int = 0,
) -> list[Case]:
    """Cases that a package was not trained on, at most `MOST_SCORED`.

    Args:
        package: The package.
        manifest: The image set.
        fold: Fold whose cases are meant; the one of the training, if left out.
        cases: Cases or ids instead.
        seed: Seed of the draw.

    Raises:
        UsageError: A case was trained on, or there is none.
    """
    found = unseen_cases([package], manifest, fold=fold, cases=cases)
    if len(found) <= MOST_SCORED:
        return list(found)
    drawn = np.random.default_rng(seed).permutation(len(found))[:MOST_SCORED]
    return [found[number] for number in sorted(drawn)]
