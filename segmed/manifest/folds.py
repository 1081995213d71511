"""Folds: which cases are held out together."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

from segmed.errors import ManifestError
from segmed.manifest.schema import Case


def split_groups(cases: Sequence[Case]) -> set[str]:
    """Groups with cases in more than one fold."""
    folds = defaultdict(set)
    for case in cases:
        folds[case.group].add(case.fold)
    return {group for group, found in folds.items() if len(found) > 1}


def assign_folds(cases: Sequence[Case], *, num_folds: int = 5, seed: int = 0) -> tuple[Case, ...]:
    """The cases with folds, so that no group is split and folds are of nearly equal size.

    Groups are shuffled by `seed`, then dealt, largest first, to the fold with the fewest cases.

    Args:
        cases: Cases with their groups; folds they already have are replaced.
        num_folds: Number of folds, at least 2.
        seed: The same seed and groups give the same folds, in whatever order the cases come.

    Raises:
        ManifestError: There are fewer groups than folds, or fewer than 2 folds.
    """
    sizes = Counter(case.group for case in cases)
    if num_folds < 2:
        raise ManifestError(f"{num_folds} folds requested: at least 2 are needed to hold cases out")
    if len(sizes) < num_folds:
        raise ManifestError(_too_few_groups(len(cases), len(sizes), num_folds))
    groups = sorted(sizes)
    random.Random(seed).shuffle(groups)  # noqa: S311 - folds, not secrets
    groups.sort(key=lambda group: -sizes[group])
    load = [0] * num_folds
    fold_of: dict[str, int] = {}
    for group in groups:
        fold = min(range(num_folds), key=lambda number: (load[number], number))
        fold_of[group] = fold
        load[fold] += sizes[group]
    return tuple(case.model_copy(update={"fold": fold_of[case.group]}) for case in cases)


def _too_few_groups(num_cases: int, num_groups: int, num_folds: int) -> str:
    """Message of cases that are too few for their folds: what was found, and the repair."""
    if num_groups >= 2:
        return (
            f"{num_groups} groups cannot fill {num_folds} folds: request at most {num_groups} "
            "folds, or check the grouping"
        )
    found = "no labelled case" if not num_cases else "1 labelled case"
    if num_cases > 1:
        found = f"{num_cases} labelled cases, all of one group (patient)"
    repair = "add labelled cases of other patients"
    if num_cases > 1:
        repair += ", or, if these are several patients, state them with --group-by"
    return f"{found}; at least 2 groups are needed to hold cases out: {repair}"
