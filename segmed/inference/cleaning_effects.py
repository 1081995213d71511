"""Effect of steps of cleaning on out-of-fold predictions, and the choice of those that help."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segmed.inference.component_counts import StructureCounts
from segmed.inference.postprocessing import NO_RULES, Cleaning, of_structures, steps_of
from segmed.metrics.significance import SIGNIFICANCE, signed_rank_p, smallest_p, tarone
from segmed.plan import Inference
from segmed.plan.cleaning_words import step_in_words
from segmed.structures import LabelClass

SIZES = (0.01, 0.05, 0.2)
"""Sizes below which components are removed on trial, as shares of a structure's median volume."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CountedCase:
    """Components of one case.

    Attributes:
        case: Case id.
        group: Patient, whose cases are one observation of the test.
        part: Fold, or part of the cases of one fold; a nested choice leaves out one part.
        counts: Counts of each structure by label value.
    """

    case: str
    group: str
    part: str
    counts: Mapping[int, StructureCounts]


@dataclass(frozen=True)
class CleaningEffect:
    """Effect of one step on out-of-fold predictions.

    Attributes:
        cleaning: The step.
        structure: Name of the structure.
        cases: Cases that have the structure in prediction or reference.
        before: Mean Dice over them without the step.
        after: Mean Dice over them with the step.
        better: Groups (patients) whose Dice rises.
        worse: Groups whose Dice falls.
        lost: Cases whose structure was found and would be removed whole.
        p_value: Wilcoxon signed-rank test over groups.
        p_corrected: The same, corrected for all steps that were tried.
    """

    cleaning: Cleaning
    structure: str
    cases: int
    before: float
    after: float
    better: int
    worse: int
    lost: int
    p_value: float
    p_corrected: float

    @property
    def helps(self) -> bool:
        """Return whether the mean rises significantly and no structure is lost."""
        return self.after > self.before and self.p_corrected < SIGNIFICANCE and not self.lost

    @property
    def verdict(self) -> str:
        """Result of the trial in a few words."""
        if self.helps:
            return "helps"
        if not self.better + self.worse:
            return "changes nothing"
        if self.after <= self.before:
            return "lowers the mean Dice"
        if self.lost:
            return f"removes a structure that was found in {self.lost} case{'s'[: self.lost > 1]}"
        return "not significant"

    def described(self) -> str:
        """The step with its effect, in words."""
        return (
            f"{in_words(self.cleaning, self.structure)} (Dice {self.before:.3f} to "
            f"{self.after:.3f}, better in {self.better}, worse in {self.worse}, "
            f"p = {self.p_corrected:.2g})"
        )

    def record(self) -> dict[str, Any]:
        """JSON values."""
        step = self.cleaning
        return {
            "structure": self.structure,
            "step": step.step,
            **({"min_ml": step.min_ml} if step.min_ml else {}),
            **({"min_voxels": step.min_voxels} if step.min_voxels else {}),
            "cases": self.cases,
            "dice_before": round(self.before, 6),
            "dice_after": round(self.after, 6),
            "better": self.better,
            "worse": self.worse,
            "p_value": float(f"{self.p_value:.4g}"),
            "p_corrected": float(f"{self.p_corrected:.4g}"),
            "verdict": self.verdict,
        }


def in_words(step: Cleaning, structure: str) -> str:
    """A step in words, such as `keep the largest component of anterior`."""
    return step_in_words(step.step, structure, min_voxels=step.min_voxels, min_ml=step.min_ml)


def effects_of(
    cases: Sequence[CountedCase],
    labels: Sequence[LabelClass],
    *,
    in_ml: bool = True,
    rules: Inference = NO_RULES,
) -> list[CleaningEffect]:
    """Try every step on every structure.

    Args:
        cases: Counted predictions of networks that had not seen the case.
        labels: The structures.
        in_ml: State sizes in millilitres, for volumes; else in voxels.
        rules: Rules that cleaned the predictions already; their steps are not tried again.

    Returns:
        One effect a step, in the order of the structures.
    """
    if not cases:
        return []
    steps = list(_candidates(cases, labels, rules, in_ml=in_ml))
    names = {label.value: label.name for label in labels}
    differences = [_group_differences(cases, step) for step in steps]
    p_values = [signed_rank_p(one) for one in differences]
    corrected = tarone(p_values, [smallest_p(one) for one in differences])
    return [
        _effect(cases, step, names[step.value], difference, (raw, float(p)))
        for step, difference, raw, p in zip(steps, differences, p_values, corrected, strict=True)
    ]


def chosen(effects: Sequence[CleaningEffect]) -> tuple[Cleaning, ...]:
    """The steps to use: of those that help, one removal a structure, and the filling of holes.

    Of several removals of one structure the one with the highest mean Dice is taken, of equal ones
    the first, which is the simplest.
    """
    best: dict[tuple[int, bool], CleaningEffect] = {}
    for effect in effects:
        key = (effect.cleaning.value, effect.cleaning.step == "fill_holes")
        if effect.helps and (key not in best or effect.after > best[key].after):
            best[key] = effect
    return tuple(effect.cleaning for effect in best.values())


def _candidates(
    cases: Sequence[CountedCase], labels: Sequence[LabelClass], rules: Inference, *, in_ml: bool
) -> Iterator[Cleaning]:
    present = {(step.step, step.value) for step in steps_of(rules)}
    for label in labels:
        tried = [Cleaning("keep_largest", label.value)]
        for size in dict.fromkeys(_sizes(cases, label.value)):
            if in_ml:
                tried.append(Cleaning("remove_small", label.value, min_ml=size))
            elif size >= 2:
                tried.append(Cleaning("remove_small", label.value, min_voxels=int(size)))
        tried.append(Cleaning("fill_holes", label.value))
        yield from of_structures(
            [step for step in tried if (step.step, step.value) not in present], labels
        )


def _sizes(cases: Sequence[CountedCase], value: int) -> Iterator[float]:
    counts = [case.counts[value] for case in cases]
    volumes = [one.reference * one.voxel_size for one in counts if one.reference]
    if volumes:
        median = float(np.median(volumes))
        yield from (float(f"{share * median:.2g}") for share in SIZES)


def _group_differences(cases: Sequence[CountedCase], step: Cleaning) -> Values:
    """Mean change of the Dice of each group; rounded, so that no arithmetic makes a difference."""
    changes: dict[str, list[float]] = {}
    for case in cases:
        counts = case.counts[step.value]
        gain = counts.after([step]).dice - counts.after([]).dice
        changes.setdefault(case.group, []).append(gain)
    return np.array([np.mean(gains) for gains in changes.values()]).round(12)


def _effect(
    cases: Sequence[CountedCase],
    step: Cleaning,
    name: str,
    differences: Values,
    p_values: tuple[float, float],
) -> CleaningEffect:
    pairs = [(c.counts[step.value].after([]), c.counts[step.value].after([step])) for c in cases]
    scored = [(old, new) for old, new in pairs if not old.is_empty]
    return CleaningEffect(
        cleaning=step,
        structure=name,
        cases=len(scored),
        before=float(np.mean([old.dice for old, _ in scored])) if scored else 1.0,
        after=float(np.mean([new.dice for _, new in scored])) if scored else 1.0,
        better=int((differences > 0).sum()),
        worse=int((differences < 0).sum()),
        lost=sum(old.common > 0 == new.common for old, new in scored),
        p_value=p_values[0],
        p_corrected=p_values[1],
    )
