"""Packages of a cascade: networks that refine the label map of a first stage, which is in them.

The plan of the package is that of the second stage; the networks of every other plan are the first
stage. Both stages take the image alone: the second gets the label map of the first on its grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from segmed.errors import UsageError
from segmed.package.card import PackagePart
from segmed.package.model_package import ModelPackage
from segmed.package.several_plans import of_each_plan

SHARED = ("channels", "labels", "ignore_value")
"""Fields of a plan that both stages must share."""


def with_first_stage(second: ModelPackage, first: ModelPackage) -> ModelPackage:
    """One package of two stages.

    Args:
        second: Networks of a plan that refines a first stage; its provenance is that of the whole.
        first: Networks of another plan, one or several averaged.

    Raises:
        UsageError: The plan of the second stage does not refine one, the first has several plans or
            refines one itself, or their structures or channels differ.
    """
    if not second.plan.refines or second.plans:
        raise UsageError(
            f"{second.architecture} is no second stage of a cascade: its plan refines no label map"
            if not second.plan.refines
            else f"{second.architecture} has its first stage already"
        )
    is_joined = any(part.structures is not None for part in first.parts)
    if first.plans or first.plan.refines or is_joined:
        raise UsageError(
            f"{first.architecture} cannot be a first stage: a first stage has networks of one plan "
            "that segment every structure from the image alone"
        )
    for name in SHARED:
        if getattr(first.plan, name) != getattr(second.plan, name):
            raise UsageError(f"the stages of a cascade share their {name}, and these differ")
    from segmed.package.ensemble import renumbered  # noqa: PLC0415 - imports this module

    return replace(
        second,
        architecture=f"{second.architecture}+{first.architecture}",
        options={},
        state=renumbered([second, first]),
        members=second.members + first.members,
        parts=(*_parts_of(second, 0), *_parts_of(first, 1)),
        plans=(first.plan,),
        int8=None,
    )


def _parts_of(package: ModelPackage, plan: int) -> tuple[PackagePart, ...]:
    own = PackagePart(
        architecture=package.architecture, options=dict(package.options), members=package.members
    )
    return tuple(part.model_copy(update={"plan": plan}) for part in package.parts or (own,))


def stages_of(package: ModelPackage) -> tuple[ModelPackage, ModelPackage]:
    """Second and first stage of a cascade, each as a package without provenance.

    Args:
        package: Of a plan that refines a first stage.

    Raises:
        UsageError: It is no cascade, its first stage is missing, or it has more than two plans.
    """
    if not package.plan.refines or not package.plans:
        raise UsageError(
            f"package {package.hash[:12]} ({package.architecture}) refines the label map of a "
            "first stage and has none: use the package that `segmed compare --cascade` writes"
            if package.plan.refines
            else f"package {package.hash[:12]} ({package.architecture}) is no cascade"
        )
    if len(package.plans) > 1:
        raise UsageError(
            f"package {package.hash[:12]} ({package.architecture}) is a cascade of "
            f"{len(package.plans) + 1} plans, and one has two: fetch the package again"
        )
    second, first = of_each_plan(package)
    return second, first


def join_cascades(packages: Sequence[ModelPackage], provenance: Mapping[str, Any]) -> ModelPackage:
    """One cascade of several, such as of the folds of a cross-validation.

    The networks of each stage are averaged: the label map that is refined is that of all first
    stages together.

    Args:
        packages: Cascades of one set-up.
        provenance: That of the whole.

    Raises:
        UsageError: One is no cascade, or two differ in more than their weights.
    """
    from segmed.package.ensemble import join_packages  # noqa: PLC0415 - imports this module

    stages = [stages_of(package) for package in packages]
    second = join_packages([one for one, _ in stages])
    first = join_packages([one for _, one in stages])
    return with_first_stage(replace(second, provenance=dict(provenance)), first)
