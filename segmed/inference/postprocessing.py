"""Cleaning a label map: largest component, small components, holes; kept only where it helps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmed.plan import Inference

Labels = npt.NDArray[Any]
"""A label map, any integer type."""

Score = Callable[[Labels, Labels, int], float]
"""From prediction, reference and label value to a score; larger is better."""


@dataclass(frozen=True)
class Cleaning:
    """One step for one label.

    Attributes:
        step: `keep_largest`, `remove_small` or `fill_holes`.
        value: Label value that it works on.
        min_voxels: Components with fewer voxels go (`remove_small`).
    """

    step: Literal["keep_largest", "remove_small", "fill_holes"]
    value: int
    min_voxels: int = 0


def cleaned(label: Labels, rules: Inference) -> Labels:
    """A label map cleaned according to the plan; without such rules, the label map itself.

    Largest components come first, then small components, then holes; within each the labels come in
    the order of the plan.
    """
    return clean(label, steps_of(rules))


def steps_of(rules: Inference) -> list[Cleaning]:
    """The steps of a plan, in the order in which they run."""
    return [
        *(Cleaning("keep_largest", value) for value in rules.keep_largest),
        *(Cleaning("remove_small", value, size) for value, size in rules.remove_small.items()),
        *(Cleaning("fill_holes", value) for value in rules.fill_holes),
    ]


def with_helpful(rules: Inference, verdicts: Iterable[CleaningEffect]) -> Inference:
    """Rules whose cleaning is what helped on out-of-fold predictions, and nothing else.

    Args:
        rules: The plan's rules; all but the cleaning stays.
        verdicts: From `validate`, its candidates in the order in which `cleaned` runs them.
    """
    steps = [verdict.cleaning for verdict in verdicts if verdict.helps]
    kept = {
        "keep_largest": tuple(s.value for s in steps if s.step == "keep_largest"),
        "remove_small": {s.value: s.min_voxels for s in steps if s.step == "remove_small"},
        "fill_holes": tuple(s.value for s in steps if s.step == "fill_holes"),
    }
    return rules.model_copy(update=kept)


def clean(label: Labels, steps: Iterable[Cleaning]) -> Labels:
    """A label map after some steps, in their order.

    Components are connected through faces. What is taken from a label becomes background; a hole,
    background enclosed by one label, becomes that label, and other labels in it stay.

    Args:
        label: `[*spatial]`.
        steps: What to do.

    Returns:
        A new label map where there are steps, else the given one.
    """
    for step in steps:
        label = _APPLY[step.step](label, step)
    return label


def keep_largest(label: Labels, step: Cleaning) -> Labels:
    """Only the largest component of a label; of equals the first in array order."""
    components, sizes = _components(label, step.value)
    if len(sizes) < 2:
        return label
    return _without(label, components, np.arange(len(sizes)) != sizes.argmax())


def remove_small(label: Labels, step: Cleaning) -> Labels:
    """A label without components of fewer than `min_voxels` voxels."""
    components, sizes = _components(label, step.value)
    small = sizes < step.min_voxels
    return _without(label, components, small) if small.any() else label


def fill_holes(label: Labels, step: Cleaning) -> Labels:
    """A label with the background that it encloses."""
    mask = label == step.value
    holes = ndimage.binary_fill_holes(mask) & (label == 0)
    if not holes.any():
        return label
    filled = label.copy()
    filled[holes] = step.value
    return filled


_APPLY: dict[str, Callable[[Labels, Cleaning], Labels]] = {
    "keep_largest": keep_largest,
    "remove_small": remove_small,
    "fill_holes": fill_holes,
}


@dataclass(frozen=True)
class CleaningEffect:
    """Effect of a post-processing step on out-of-fold predictions.

    Attributes:
        cleaning: The step.
        before: Mean score without it.
        after: Mean score with it.
        worse: Cases that it made worse.
        cases: Cases looked at.
    """

    cleaning: Cleaning
    before: float
    after: float
    worse: int
    cases: int

    @property
    def helps(self) -> bool:
        """Return whether the mean rose, and no more than one case in ten became worse."""
        return self.after > self.before and 10 * self.worse <= self.cases


def validate(
    cases: Sequence[tuple[Labels, Labels]], candidates: Sequence[Cleaning], *, score: Score
) -> list[CleaningEffect]:
    """Try steps on out-of-fold predictions; a step that helps stays for the next one.

    Args:
        cases: Prediction and reference of each case. They must come from networks that did not see
            the case, or the verdict flatters.
        candidates: The steps, in the order in which they would run.
        score: Such as `dice_of`.

    Returns:
        One verdict a step; those that help, in order, are the post-processing to use.
    """
    current = [prediction for prediction, _ in cases]
    references = [reference for _, reference in cases]
    verdicts = []
    for step in candidates:
        after = [clean(prediction, [step]) for prediction in current]
        old = [score(p, r, step.value) for p, r in zip(current, references, strict=True)]
        new = [score(p, r, step.value) for p, r in zip(after, references, strict=True)]
        worse = sum(n < o for n, o in zip(new, old, strict=True))
        verdict = CleaningEffect(step, float(np.mean(old)), float(np.mean(new)), worse, len(cases))
        verdicts.append(verdict)
        if verdict.helps:
            current = after
    return verdicts


def dice_of(prediction: Labels, reference: Labels, value: int) -> float:
    """Dice of one label; 1 where both are empty, since leaving emptiness alone is right."""
    found, truth = prediction == value, reference == value
    total = int(found.sum()) + int(truth.sum())
    return 1.0 if total == 0 else 2.0 * int((found & truth).sum()) / total


def _components(label: Labels, value: int) -> tuple[Labels, npt.NDArray[np.int64]]:
    """Component number of each voxel of a label, 0 elsewhere, and the size of each from 1 on."""
    components, number = ndimage.label(label == value)
    sizes = np.zeros(number + 1, dtype=np.int64)
    for plane in components:  # `bincount` copies what it counts into eight bytes each
        sizes += np.bincount(plane.ravel(), minlength=number + 1)
    return components, sizes[1:]


def _without(label: Labels, components: Labels, goes: npt.NDArray[np.bool_]) -> Labels:
    kept = label.copy()
    kept[np.concatenate([[False], goes])[components]] = 0
    return kept
