"""The networks of several folds as one package, which is used like any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from segmed.errors import UsageError
from segmed.metrics.training_norms import DISTRIBUTIONS, RANGES, RESULTS
from segmed.package import ModelPackage
from segmed.package.card import PackagePart
from segmed.package.cascade import join_cascades
from segmed.package.training_cases import CORRECTIONS, SEEN
from segmed.plan import plan_hash
from segmed.quality.identity import PREDICTED_QUALITY

SHARED = ("data", "data_licence", "data_source", "plan_hash", "versions", "commit")
"""Provenance that is kept where the members agree on it."""

BULKY = (RANGES, DISTRIBUTIONS, RESULTS, PREDICTED_QUALITY, "curves", SEEN, CORRECTIONS)
"""Provenance of a member that is not repeated in an ensemble's: its images, errors and epochs."""


def join_packages(
    packages: Sequence[ModelPackage], provenance: Mapping[str, Any] | None = None
) -> ModelPackage:
    """One package whose probabilities are the mean of the members'.

    Args:
        packages: Single networks of one architecture under one plan, as the folds of a
            cross-validation are, or cascades of these. Their order does not matter to the result.
        provenance: What is to be known of the whole, such as the norms of all training cases.

    Returns:
        The ensemble; its provenance lists that of each member.

    Raises:
        UsageError: There are fewer than two, one is an ensemble itself, or two differ in more than
            their weights.
    """
    if len(packages) < 2:
        raise UsageError(f"an ensemble needs at least two packages, got {len(packages)}")
    first = packages[0]
    if all(package.plan.refines and package.plans for package in packages):
        return join_cascades(packages, {**joined_provenance(packages), **(provenance or {})})
    for number, package in enumerate(packages, start=1):
        if package.members > 1:
            raise UsageError(f"package {number} is an ensemble itself; join its members instead")
        forms = (package.architecture, dict(package.options), plan_hash(package.plan))
        if forms != (first.architecture, dict(first.options), plan_hash(first.plan)):
            raise UsageError(
                f"package {number} ({package.architecture}) differs from the first "
                f"({first.architecture}) in more than its weights; join folds of one training "
                "set-up, or give several --model to `segmed predict`"
            )
    state = {
        f"members.{index}.{name}": tensor
        for index, package in enumerate(packages)
        for name, tensor in package.state.items()
    }
    return ModelPackage(
        architecture=first.architecture,
        options=first.options,
        plan=first.plan,
        state=state,
        provenance={**joined_provenance(packages), **(provenance or {})},
        members=len(packages),
    )


def mix_packages(
    packages: Sequence[ModelPackage], provenance: Mapping[str, Any] | None = None
) -> ModelPackage:
    """One package whose probabilities are the mean of networks of several architectures.

    Args:
        packages: Packages under one plan, each a network or the ensemble of one architecture.
        provenance: What is to be known of the whole.

    Returns:
        The ensemble; every network counts the same.

    Raises:
        UsageError: There are fewer than two, two have different plans, or an architecture occurs
            twice.
    """
    if len(packages) < 2:
        raise UsageError(f"an ensemble needs at least two packages, got {len(packages)}")
    first, names = packages[0], [package.architecture for package in packages]
    if len(set(names)) < len(names) or any(p.parts or p.plans for p in packages):
        raise UsageError(
            f"the architectures {', '.join(names)} are not one a package: join the folds of each "
            "architecture first"
        )
    for package in packages[1:]:
        if plan_hash(package.plan) != plan_hash(first.plan):
            raise UsageError(
                f"{package.architecture} has another plan than {first.architecture}: average "
                "packages that were trained under one plan"
            )
    trainings = [training for package in packages for training in trainings_of(package)]
    return ModelPackage(
        architecture="+".join(names),
        options={},
        plan=first.plan,
        state=renumbered(packages),
        provenance={**joined_provenance(packages), "members": trainings, **(provenance or {})},
        members=sum(package.members for package in packages),
        parts=tuple(
            PackagePart(
                architecture=package.architecture,
                options=dict(package.options),
                members=package.members,
            )
            for package in packages
        ),
    )


def trainings_of(package: ModelPackage) -> list[Any]:
    """Provenance of each training of a package; of a single network its own."""
    return list(package.provenance.get("members", joined_provenance([package])["members"]))


def renumbered(packages: Sequence[ModelPackage]) -> dict[str, Tensor]:
    """Tensors of the networks of several packages, which follow each other."""
    state: dict[str, Tensor] = {}
    offset = 0
    for package in packages:
        for name, tensor in package.state.items():
            number, inside = 0, name
            if package.members > 1:
                _, text, inside = name.split(".", 2)
                number = int(text)
            state[f"members.{offset + number}.{inside}"] = tensor
        offset += package.members
    return state


def joined_provenance(packages: Sequence[ModelPackage]) -> dict[str, Any]:
    """Provenance on which packages agree, and that of each as a member."""
    first = packages[0].provenance
    shared = {
        key: first[key]
        for key in SHARED
        if key in first and all(other.provenance.get(key) == first[key] for other in packages)
    }
    members = [
        {
            "hash": package.hash,
            **{key: value for key, value in package.provenance.items() if key not in BULKY},
        }
        for package in packages
    ]
    return {**shared, "members": members}
