"""Cleaning a label map: largest component, small components, holes; kept only where it helps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmed.plan import Inference
from segmed.structures import LabelClass

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
        values: Label values of all its voxels, if it is a region.
        outside: Label value of the smallest region that it lies in; 0 for background.
    """

    step: Literal["keep_largest", "remove_small", "fill_holes"]
    value: int
    min_voxels: int = 0
    values: tuple[int, ...] = ()
    outside: int = 0

    def mask(self, label: Labels) -> npt.NDArray[np.bool_]:
        """Voxels of the label or region."""
        return np.isin(label, self.values) if self.values else label == self.value


def cleaned(label: Labels, rules: Inference, labels: Sequence[LabelClass] = ()) -> Labels:
    """A label map cleaned according to the plan; without such rules, the label map itself.

    Largest components come first, then small components, then holes; within each the labels come in
    the order of the plan.

    Args:
        label: `[*spatial]`.
        rules: The plan's.
        labels: The structures; a rule for a region works on all that lies in it.
    """
    return clean(label, steps_of(rules, labels))


def steps_of(rules: Inference, labels: Sequence[LabelClass] = ()) -> list[Cleaning]:
    """The steps of a plan, in the order in which they run."""
    inside = {label.value: label.region for label in labels}
    steps = [
        *(Cleaning("keep_largest", value) for value in rules.keep_largest),
        *(Cleaning("remove_small", value, size) for value, size in rules.remove_small.items()),
        *(Cleaning("fill_holes", value) for value in rules.fill_holes),
    ]
    return [
        replace(step, values=inside.get(step.value, ()), outside=_outside(step.value, labels))
        for step in steps
    ]


def _outside(value: int, labels: Sequence[LabelClass]) -> int:
    """Value of the smallest region around a label; regions come before those within them."""
    around = [label.value for label in labels if value in label.region and value != label.value]
    return around[-1] if around else 0


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

    Components are connected through faces. What is taken from a label becomes background, or the
    region around it; a hole, background enclosed by one label, becomes that label, and other labels
    in it stay.

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
    components, sizes = _components(step.mask(label))
    if len(sizes) < 2:
        return label
    return _without(label, components, np.arange(len(sizes)) != sizes.argmax(), step.outside)


def remove_small(label: Labels, step: Cleaning) -> Labels:
    """A label without components of fewer than `min_voxels` voxels."""
    components, sizes = _components(step.mask(label))
    small = sizes < step.min_voxels
    return _without(label, components, small, step.outside) if small.any() else label


def fill_holes(label: Labels, step: Cleaning) -> Labels:
    """A label with the background, or the region around it, that it encloses."""
    mask = step.mask(label)
    holes = ndimage.binary_fill_holes(mask) & ((label == 0) | (label == step.outside)) & ~mask
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


def _components(mask: npt.NDArray[np.bool_]) -> tuple[Labels, npt.NDArray[np.int64]]:
    """Component number of each voxel of a mask, 0 elsewhere, and the size of each from 1 on."""
    components, number = ndimage.label(mask)
    sizes = np.zeros(number + 1, dtype=np.int64)
    for plane in components:  # `bincount` copies what it counts into eight bytes each
        sizes += np.bincount(plane.ravel(), minlength=number + 1)
    return components, sizes[1:]


def _without(
    label: Labels, components: Labels, goes: npt.NDArray[np.bool_], outside: int
) -> Labels:
    kept = label.copy()
    kept[np.concatenate([[False], goes])[components]] = outside
    return kept
