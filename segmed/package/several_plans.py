"""Packages whose networks have several plans, such as 2D and 3D: averaged on the image's own grid.

Networks of one plan are averaged window by window. Those of other plans see other windows, often at
another spacing, so their probabilities meet on the grid of the image, as nnU-Net averages its
configurations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from segmed.package.model_package import ModelPackage
from segmed.plan import Plan

SHARED = ("channels", "labels", "ignore_value")
"""Fields of a plan that networks averaged on the grid of the image must share."""

SHARED_PREPROCESSING = ("scheme", "orientation", "axes", "crop_nonzero")
"""Fields of `Preprocessing`, likewise: axes and box of the image are the same for all."""


def difference_of(first: Plan, other: Plan) -> str:
    """Field in which two plans differ so that their probabilities cannot be averaged; or empty.

    Args:
        first: A plan.
        other: Another one; patch, spacing, dimensions and intensities may differ.
    """
    if first.refines or other.refines:
        return "refines"
    for name in SHARED:
        if getattr(first, name) != getattr(other, name):
            return name
    for name in SHARED_PREPROCESSING:
        if getattr(first.preprocessing, name) != getattr(other.preprocessing, name):
            return name
    if len(first.preprocessing.spacing_mm) != len(other.preprocessing.spacing_mm):
        return "spacing_mm"
    if None not in (first.slice_axis, other.slice_axis) and first.slice_axis != other.slice_axis:
        return "slice_axis"
    return ""


def of_each_plan(package: ModelPackage) -> list[ModelPackage]:
    """The networks of a package as one package a plan; a package of one plan is itself.

    Args:
        package: The package. Provenance stays with it: it is of the whole.
    """
    if not package.plans:
        return [package]
    return [_of_plan(package, number) for number in range(len(package.plans) + 1)]


def _of_plan(package: ModelPackage, number: int) -> ModelPackage:
    numbers: list[int] = []
    first = 0
    for part in package.parts:
        if part.plan == number:
            numbers += range(first, first + part.members)
        first += part.members
    parts = tuple(
        part.model_copy(update={"plan": 0}) for part in package.parts if part.plan == number
    )
    is_mixed = len(parts) > 1
    return ModelPackage(
        architecture="+".join(part.architecture for part in parts),
        options={} if is_mixed else parts[0].options,
        plan=(package.plan, *package.plans)[number],
        state=_taken(package.state, numbers),
        members=len(numbers),
        parts=parts if is_mixed else (),
    )


def _taken(state: Mapping[str, Tensor], numbers: Sequence[int]) -> dict[str, Tensor]:
    """Tensors of some networks of several, renumbered; of a single one without a number."""
    new = {old: place for place, old in enumerate(numbers)}
    taken = {}
    for name, tensor in state.items():
        _, text, inside = name.split(".", 2)
        if (place := new.get(int(text))) is not None:
            taken[inside if len(new) == 1 else f"members.{place}.{inside}"] = tensor
    return taken
