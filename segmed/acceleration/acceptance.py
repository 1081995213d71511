"""Acceptance of a faster way: paired differences on held-out cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from segmed.io import read_label
from segmed.metrics.comparison import paired_values
from segmed.metrics.resample import bootstrap_means
from segmed.metrics.score import METRICS
from segmed.package.int8 import ChangeLimits, StructureEffect


def effects_of(
    before: pd.DataFrame, after: pd.DataFrame, limits: ChangeLimits
) -> tuple[StructureEffect, ...]:
    """Effect on the Dice of each structure and on their mean, case by case.

    A structure that one way invents and the other rightly does not find counts with 0 and 1.

    Args:
        before: Scores of the present way, as from `segmed.metrics.scores_table`.
        after: Scores of the same cases by the faster way.
        limits: Gives the confidence of the bound.

    Raises:
        MetricError: The two were scored on different cases, or nothing can be compared.
    """
    dice = next(metric for metric in METRICS if metric.name == "dice")
    paired = paired_values({"before": before, "after": after}, [dice])
    tail = 100.0 * (1.0 - limits.confidence)
    found = []
    for label, values in paired.items():
        pairs = values[dice.name]
        difference = (pairs["after"] - pairs["before"]).to_numpy(dtype=np.float64)
        bound = np.percentile(bootstrap_means(difference[:, None])[:, 0], tail)
        found.append(
            StructureEffect(
                label=label,
                cases=len(pairs),
                dice_before=_kept(pairs["before"].mean()),
                dice_after=_kept(pairs["after"].mean()),
                difference=_kept(difference.mean()),
                bound=_kept(float(bound)),
            )
        )
    return tuple(found)


def labels_changed(one: Mapping[str, Path], other: Mapping[str, Path]) -> float:
    """Share of voxels with another label, of those that either label map gives to a structure.

    Args:
        one: Label map of each case, by case id.
        other: The same from the other way.
    """
    changed = structure = 0
    for case, path in one.items():
        here, there = (np.asarray(read_label(file)) for file in (path, other[case]))
        changed += int(np.count_nonzero(here != there))
        structure += int(np.count_nonzero((here != 0) | (there != 0)))
    return _kept(changed / max(1, structure))


def faults_of(
    effects: Sequence[StructureEffect], changed: float, limits: ChangeLimits, *, cases: int
) -> list[str]:
    """Limits that are not kept, one a line; none if the way is accepted.

    Args:
        effects: From `effects_of`.
        changed: From `labels_changed`.
        limits: The limits.
        cases: Held-out cases.
    """
    found = []
    if cases < limits.min_cases:
        found.append(f"{cases} held-out cases, {limits.min_cases} are needed")
    for effect in effects:
        if effect.difference < -limits.dice_loss:
            found.append(
                f"{effect.label}: mean Dice changes by {effect.difference:+.4f}, at most "
                f"-{limits.dice_loss:g} is accepted"
            )
        elif effect.bound < -limits.dice_loss:
            found.append(
                f"{effect.label}: lower bound of the change of Dice {effect.bound:+.4f} "
                f"({effect.cases} pairs), at most -{limits.dice_loss:g} is accepted"
            )
    if changed > limits.labels_changed:
        found.append(
            f"{changed:.2%} of labels change, at most {limits.labels_changed:.2%} is accepted"
        )
    return found


def _kept(value: float) -> float:
    return float(f"{value:.6g}")
