"""Cleaning a label map: largest component, small components, holes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from segmed.errors import UsageError
from segmed.geometry import ML_PER_CUBIC_MM
from segmed.metrics.pair import foreground_box
from segmed.plan import Inference
from segmed.structures import LabelClass

Labels = npt.NDArray[Any]
"""A label map, any integer type."""

NO_RULES = Inference()
"""Rules without any cleaning."""

ROUNDING = 1e-9
"""Share by which a volume may differ from a whole number of voxels by its arithmetic."""


@dataclass(frozen=True)
class Cleaning:
    """One step for one label.

    Attributes:
        step: `keep_largest_together`, `keep_largest`, `remove_small` or `fill_holes`.
        value: Label value that it works on.
        min_voxels: Components with fewer voxels go (`remove_small`).
        min_ml: The same in millilitres; larger than 0 it comes before `min_voxels`.
        values: Label values of all its voxels, if it is a region or a group.
        outside: Label value of the smallest region that it lies in; 0 for background.
    """

    step: Literal["keep_largest_together", "keep_largest", "remove_small", "fill_holes"]
    value: int
    min_voxels: int = 0
    min_ml: float = 0.0
    values: tuple[int, ...] = ()
    outside: int = 0

    def mask(self, label: Labels) -> npt.NDArray[np.bool_]:
        """Voxels of the label or region."""
        return np.isin(label, self.values) if self.values else label == self.value

    def threshold(self, voxel_ml: float) -> int:
        """Fewest voxels of a component that stays, on a grid of voxels of this size."""
        if not self.min_ml:
            return self.min_voxels
        return ceil(self.min_ml / voxel_ml * (1.0 - ROUNDING))


def cleaned(
    label: Labels,
    rules: Inference,
    labels: Sequence[LabelClass] = (),
    *,
    spacing_mm: Sequence[float] = (),
) -> Labels:
    """A label map cleaned according to the plan; without such rules, the label map itself.

    Largest components come first, of groups before single labels, then small components, then
    holes; within each the labels come in the order of the plan.

    Args:
        label: `[*spatial]`.
        rules: The plan's.
        labels: The structures; a rule for a region works on all that lies in it.
        spacing_mm: Voxel edge along each axis of a volume, for rules in millilitres.
    """
    return clean(label, steps_of(rules, labels), spacing_mm=spacing_mm)


def steps_of(rules: Inference, labels: Sequence[LabelClass] = ()) -> list[Cleaning]:
    """The steps of a plan, in the order in which they run."""
    steps = [
        *(Cleaning("keep_largest", value) for value in rules.keep_largest),
        *(Cleaning("remove_small", value, size) for value, size in rules.remove_small.items()),
        *(
            Cleaning("remove_small", value, min_ml=size)
            for value, size in rules.remove_small_ml.items()
        ),
        *(Cleaning("fill_holes", value) for value in rules.fill_holes),
    ]
    groups = [
        Cleaning("keep_largest_together", values[0], values=values)
        for values in rules.keep_largest_together
    ]
    return groups + of_structures(steps, labels)


def of_structures(steps: Iterable[Cleaning], labels: Sequence[LabelClass]) -> list[Cleaning]:
    """The steps with the values of each one's region, and of the region around it."""
    inside = {label.value: label.region for label in labels}
    return [
        replace(step, values=inside.get(step.value, ()), outside=_outside(step.value, labels))
        for step in steps
    ]


def _outside(value: int, labels: Sequence[LabelClass]) -> int:
    """Value of the smallest region around a label; regions come before those within them."""
    around = [label.value for label in labels if value in label.region and value != label.value]
    return around[-1] if around else 0


def with_steps(rules: Inference, steps: Iterable[Cleaning]) -> Inference:
    """Rules of a plan with more steps of cleaning; those that it has stay."""
    added = list(steps)
    largest = [step.value for step in added if step.step == "keep_largest"]
    small = [step for step in added if step.step == "remove_small"]
    holes = [step.value for step in added if step.step == "fill_holes"]
    return rules.model_copy(
        update={
            "keep_largest": tuple(dict.fromkeys([*rules.keep_largest, *largest])),
            "remove_small": rules.remove_small
            | {step.value: step.min_voxels for step in small if not step.min_ml},
            "remove_small_ml": rules.remove_small_ml
            | {step.value: step.min_ml for step in small if step.min_ml},
            "fill_holes": tuple(dict.fromkeys([*rules.fill_holes, *holes])),
        }
    )


def clean(label: Labels, steps: Iterable[Cleaning], *, spacing_mm: Sequence[float] = ()) -> Labels:
    """A label map after some steps, in their order.

    Components are connected through faces, those of a group through edges and corners too. What is
    taken from a label becomes background, or the region around it; a hole, background enclosed by
    one label, becomes that label, and other labels in it stay.

    Args:
        label: `[*spatial]`.
        steps: What to do.
        spacing_mm: Voxel edge along each axis of a volume, for sizes in millilitres.

    Returns:
        A new label map where a step changes it, else the given one.

    Raises:
        UsageError: A size is in millilitres, and the label map is not a volume of known spacing.
    """
    result = label
    for step in steps:
        box = foreground_box(step.mask(result))
        if box is None:
            continue
        found = _APPLY[step.step](result[box], _in_voxels(step, spacing_mm))
        if found is not None:
            result = label.copy() if result is label else result
            result[box] = found
    return result


def _in_voxels(step: Cleaning, spacing_mm: Sequence[float]) -> Cleaning:
    if not step.min_ml:
        return step
    if len(spacing_mm) != 3:
        raise UsageError(
            f"components below {step.min_ml:g} ml can be removed from volumes only; state the size "
            "in pixels (remove_small)"
        )
    return replace(step, min_voxels=step.threshold(prod(spacing_mm) * ML_PER_CUBIC_MM), min_ml=0.0)


def keep_largest(label: Labels, step: Cleaning) -> Labels | None:
    """Only the largest component of a label, of equals the first in array order; None: as it is."""
    components, sizes = components_in(step.mask(label))
    if len(sizes) < 2:
        return None
    return _without(label, components, np.arange(len(sizes)) != sizes.argmax(), step.outside)


def keep_largest_together(label: Labels, step: Cleaning) -> Labels | None:
    """Only the largest component of a group of labels; of equals all. None: as it is."""
    from scipy import ndimage  # noqa: PLC0415 - most plans clean nothing

    joined = ndimage.generate_binary_structure(label.ndim, label.ndim)
    components, sizes = components_in(step.mask(label), joined)
    if len(sizes) < 2:
        return None
    return _without(label, components, sizes < sizes.max(), step.outside)


def remove_small(label: Labels, step: Cleaning) -> Labels | None:
    """A label without components of fewer than `min_voxels` voxels; None: as it is."""
    components, sizes = components_in(step.mask(label))
    small = sizes < step.min_voxels
    return _without(label, components, small, step.outside) if small.any() else None


def fill_holes(label: Labels, step: Cleaning) -> Labels | None:
    """A label with the background, or the region around it, that it encloses; None: as it is."""
    holes = holes_in(label, step)
    if not holes.any():
        return None
    filled = label.copy()
    filled[holes] = step.value
    return filled


def holes_in(label: Labels, step: Cleaning) -> npt.NDArray[np.bool_]:
    """Voxels that a label encloses and that filling its holes gives to it."""
    from scipy import ndimage  # noqa: PLC0415 - most plans clean nothing

    mask = step.mask(label)
    filled = ndimage.binary_fill_holes(mask)
    return np.asarray(filled & ((label == 0) | (label == step.outside)) & ~mask)


_APPLY: dict[str, Callable[[Labels, Cleaning], Labels | None]] = {
    "keep_largest_together": keep_largest_together,
    "keep_largest": keep_largest,
    "remove_small": remove_small,
    "fill_holes": fill_holes,
}


def components_in(
    mask: npt.NDArray[np.bool_], joined: npt.NDArray[np.bool_] | None = None
) -> tuple[Labels, npt.NDArray[np.int64]]:
    """Component number of each voxel of a mask, 0 elsewhere, and the size of each from 1 on.

    Args:
        mask: The voxels.
        joined: Neighbours that are joined; those across faces if not given.
    """
    from scipy import ndimage  # noqa: PLC0415 - most plans clean nothing

    components, number = ndimage.label(mask, joined)
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
