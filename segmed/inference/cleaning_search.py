"""Search for post-processing on the label maps of networks that had not seen the cases.

The choice is made on all cases. Its worth is measured apart: every part of the cases (a fold) is
cleaned by the steps that the other parts alone would have chosen, and scored. A choice that lowers
the mean Dice so, or that no other parts would have made, is not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segmed.geometry import ML_PER_CUBIC_MM
from segmed.inference.cleaning_effects import (
    CleaningEffect,
    CountedCase,
    chosen,
    effects_of,
    in_words,
)
from segmed.inference.component_counts import count_case
from segmed.inference.postprocessing import NO_RULES, Cleaning, Labels, clean
from segmed.io import grid_of, read_label
from segmed.manifest import Case, Manifest, read_reference
from segmed.metrics import evaluate_case, scores_table
from segmed.metrics.comparison import paired_values
from segmed.metrics.resample import bootstrap_means, interval
from segmed.metrics.score import MEAN_LABEL, METRICS
from segmed.plan import Inference

WORKERS = 2
"""Cases counted at once; each takes memory for two label maps."""

MOST_PARTS = 5
"""Parts that the cases of a single fold are dealt into for the nested choice."""


@dataclass(frozen=True)
class NestedGain:
    """Mean Dice without and with steps chosen on the other parts of the cases.

    Attributes:
        before: Mean Dice of the predictions as they are.
        after: Mean Dice after the steps.
        low: Lower end of the 95 % bootstrap interval of the difference.
        high: Upper end of it.
        cases: Cases with a structure in prediction or reference.
    """

    before: float
    after: float
    low: float
    high: float
    cases: int


@dataclass(frozen=True, repr=False)
class CleaningSearch:
    """Result of a search.

    Attributes:
        effects: Every step that was tried.
        steps: Steps to use; none if none helps, or if the nested choice lowers the mean Dice or is
            empty in every part.
        withdrawn: Steps that help on all cases, and are not used for one of these reasons.
        nested: Steps chosen without each part, by part.
        gain: Worth of the nested choice; None without steps in any part, or with a single group.
        table: Scores of all cases, each cleaned by the steps chosen without its part.
        cases: Number of cases.
        groups: Number of groups (patients).
    """

    effects: tuple[CleaningEffect, ...]
    steps: tuple[Cleaning, ...]
    withdrawn: tuple[Cleaning, ...]
    nested: Mapping[str, tuple[Cleaning, ...]]
    gain: NestedGain | None
    table: pd.DataFrame
    cases: int
    groups: int

    def __repr__(self) -> str:
        """Steps to use in one line."""
        used = ", ".join(in_words(step, str(step.value)) for step in self.steps) or "none"
        return f"CleaningSearch({used}; {len(self.effects)} tried on {self.cases} cases)"

    @property
    def used(self) -> list[CleaningEffect]:
        """Effects of the steps to use."""
        return [effect for effect in self.effects if effect.cleaning in self.steps]


def search_cleaning(
    predictions: Mapping[str, Path],
    manifest: Manifest,
    table: pd.DataFrame,
    *,
    rules: Inference = NO_RULES,
) -> CleaningSearch:
    """Try post-processing on label maps of held-out cases, and choose what helps.

    Args:
        predictions: Label map of each case, by case id, from a network that had not seen it.
        manifest: The image set of the cases.
        table: Scores of the label maps as they are.
        rules: Rules by which the label maps were cleaned already.

    Returns:
        The choice, the evidence for it, and scores after a nested choice.

    Raises:
        ImageError: A label map cannot be read.
    """
    cases = [case for case in manifest.training if case.id in predictions]
    parts = _parts(cases)

    def count(case: Case) -> tuple[CountedCase, bool]:
        prediction, reference, spacing_mm = _read(case, predictions, manifest)
        is_volume = len(spacing_mm) == 3
        size = prod(spacing_mm) * ML_PER_CUBIC_MM if is_volume else 1.0
        counts = count_case(prediction, reference, manifest.encoding, voxel_size=size)
        return CountedCase(case.id, case.group, parts[case.id], counts), is_volume

    with ThreadPoolExecutor(WORKERS) as pool:
        found = list(pool.map(count, cases))
    counted, in_ml = [one for one, _ in found], all(is_volume for _, is_volume in found)

    def effects(some: Sequence[CountedCase]) -> list[CleaningEffect]:
        return effects_of(some, manifest.labels, in_ml=in_ml, rules=rules)

    tried = effects(counted)
    steps = chosen(tried)
    names = sorted(set(parts.values()))
    nested = {
        name: chosen(effects([one for one in counted if one.part != name]))
        for name in names
        if len(names) > 1
    }
    cleaned = _rescored(cases, parts, nested, predictions, manifest, table)
    gain = _gain(table, cleaned) if any(nested.values()) else None
    is_proved = gain is not None and gain.after >= gain.before
    return CleaningSearch(
        effects=tuple(tried),
        steps=steps if is_proved else (),
        withdrawn=() if is_proved else steps,
        nested=nested,
        gain=gain,
        table=cleaned if is_proved else table,
        cases=len(cases),
        groups=len({case.group for case in cases}),
    )


def _parts(cases: Sequence[Case]) -> dict[str, str]:
    """Part of each case: its fold, or where there is one fold, groups dealt out in order."""
    folds = {case.fold for case in cases}
    if len(folds) > 1:
        return {case.id: f"fold {case.fold}" for case in cases}
    groups = sorted({case.group for case in cases})
    number = {group: index % MOST_PARTS for index, group in enumerate(groups)}
    return {case.id: f"part {number[case.group]}" for case in cases}


def _read(
    case: Case, predictions: Mapping[str, Path], manifest: Manifest
) -> tuple[Labels, Labels, tuple[float, ...]]:
    """Prediction, reference and spacing of a case."""
    prediction = read_label(predictions[case.id])
    path = manifest.label_path(case)
    assert path is not None  # it was scored
    reference = read_reference(manifest, path, like=prediction)
    spacing_mm = grid_of(prediction).spacing_mm
    return np.asarray(prediction)[0], np.asarray(reference)[0], spacing_mm


def _rescored(
    cases: Sequence[Case],
    parts: Mapping[str, str],
    nested: Mapping[str, Sequence[Cleaning]],
    predictions: Mapping[str, Path],
    manifest: Manifest,
    table: pd.DataFrame,
) -> pd.DataFrame:
    """The table with new rows for the cases that the nested steps change."""
    rows: dict[str, pd.DataFrame] = {}
    for case in cases:
        steps = nested.get(parts[case.id], ())
        if not steps:
            continue
        prediction, reference, spacing_mm = _read(case, predictions, manifest)
        after = clean(prediction, steps, spacing_mm=spacing_mm)
        if after is prediction:
            continue
        scores = evaluate_case(
            after,
            reference,
            labels=manifest.encoding,
            spacing_mm=spacing_mm,
            case_id=case.id,
        )
        rows[case.id] = scores_table(scores)
    if not rows:
        return table
    kept = table[~table["case"].isin(list(rows))]
    order = {str(name): number for number, name in enumerate(dict.fromkeys(table["case"]))}
    joined = pd.concat([kept, *rows.values()], ignore_index=True)
    return joined.sort_values("case", key=lambda ids: ids.map(order), kind="stable").reset_index(
        drop=True
    )


def _gain(before: pd.DataFrame, after: pd.DataFrame) -> NestedGain:
    dice = next(metric for metric in METRICS if metric.name == "dice")
    values = paired_values({"before": before, "after": after}, [dice])[MEAN_LABEL][dice.name]
    difference = (values["after"] - values["before"]).to_numpy(dtype=np.float64)
    (low,), (high,) = interval(bootstrap_means(difference[:, None]))
    return NestedGain(
        before=float(values["before"].mean()),
        after=float(values["after"].mean()),
        low=float(low),
        high=float(high),
        cases=len(values),
    )


def search_record(search: CleaningSearch) -> dict[str, Any]:
    """JSON values of a search, without names of cases."""
    return {
        "used": [effect.record() for effect in search.used],
        "tried": [effect.record() for effect in search.effects],
        "withdrawn": len(search.withdrawn),
        "cases": search.cases,
        "groups": search.groups,
        "nested": None
        if search.gain is None
        else {
            "parts": len(search.nested),
            "cases": search.gain.cases,
            "dice_before": round(search.gain.before, 6),
            "dice_after": round(search.gain.after, 6),
            "ci_low": round(search.gain.low, 6),
            "ci_high": round(search.gain.high, 6),
        },
    }
