"""Making of packages whose networks have several plans, see `segmed.package.several_plans`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segmed.errors import UsageError
from segmed.package.card import MOST_PLANS, PackagePart
from segmed.package.ensemble import joined_provenance, renumbered, trainings_of
from segmed.package.model_package import ModelPackage
from segmed.package.several_plans import difference_of
from segmed.plan import plan_hash


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
