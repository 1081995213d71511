"""Packages whose networks have several plans, such as 2D and 3D: averaged on the image's own grid.

Networks of one plan are averaged window by window. Those of other plans see other windows, often at
another spacing, so their probabilities meet on the grid of the image, as nnU-Net averages its
configurations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from segmed.errors import UsageError
from segmed.package.card import MOST_PLANS, PackagePart
from segmed.package.ensemble import joined_provenance, renumbered, trainings_of
from segmed.package.model_package import ModelPackage
from segmed.plan import Plan, plan_hash

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


def mix_plans(
    packages: Sequence[ModelPackage], provenance: Mapping[str, Any] | None = None
) -> ModelPackage:
    """One package whose probabilities are the mean of networks of several plans.

    Args:
        packages: One a plan, each a network or an ensemble. The first one's plan has the rules of
            inference for the whole, such as post-processing.
        provenance: What is to be known of the whole.

    Returns:
        The ensemble; every network counts the same.

    Raises:
        UsageError: There are fewer than two or more than `MOST_PLANS`, two have one plan, or their
            plans differ in more than patch, spacing, dimensions and intensities.
    """
    if not 2 <= len(packages) <= MOST_PLANS:
        raise UsageError(
            f"networks of 2 to {MOST_PLANS} plans can be one package, got {len(packages)}"
        )
    first = packages[0]
    for number, package in enumerate(packages, start=1):
        if package.plans or any(part.structures is not None for part in package.parts):
            raise UsageError(
                f"package {number} ({package.architecture}) has several plans or part models "
                "already: average the models that it was made of"
            )
        if difference := difference_of(first.plan, package.plan):
            raise UsageError(
                f"package {number} ({package.architecture}) differs from the first "
                f"({first.architecture}) in {difference!r}: plans of one package share channels, "
                "labels, orientation and cropping"
            )
    if len({plan_hash(package.plan) for package in packages}) < len(packages):
        raise UsageError("two packages have the same plan: join or mix these first")
    parts = [part for number, one in enumerate(packages) for part in _parts_of(one, number)]
    trainings = [training for package in packages for training in trainings_of(package)]
    return ModelPackage(
        architecture="+".join(_names(packages)),
        options={},
        plan=first.plan,
        state=renumbered(packages),
        provenance={**joined_provenance(packages), "members": trainings, **(provenance or {})},
        members=sum(package.members for package in packages),
        parts=tuple(parts),
        plans=tuple(package.plan for package in packages[1:]),
    )


def _parts_of(package: ModelPackage, plan: int) -> list[PackagePart]:
    own = PackagePart(
        architecture=package.architecture, options=dict(package.options), members=package.members
    )
    return [part.model_copy(update={"plan": plan}) for part in package.parts or (own,)]


def _names(packages: Sequence[ModelPackage]) -> list[str]:
    """Architectures in order, with their dimensions where these differ."""
    has_both = len({package.plan.spatial_dims for package in packages}) > 1
    return [
        f"{name}-{package.plan.spatial_dims}d" if has_both else name
        for package in packages
        for name in package.architecture.split("+")
    ]


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
