"""First stage of a cascade, as the training of its second stage needs it."""

from __future__ import annotations

from segmed.errors import UsageError
from segmed.manifest.schema import Manifest
from segmed.package import ModelPackage
from segmed.plan.schema import Plan
from segmed.training.settings import FirstStage
from segmed.transforms.first_stage import needs_first_stage


def check_first_stage(plan: Plan, manifest: Manifest, first: FirstStage | None) -> None:
    """Check that a first stage is given where a plan refines one, and there alone.

    Args:
        plan: The plan of the training.
        manifest: The image set.
        first: The first stage.

    Raises:
        UsageError: It is missing, lacks a case, or the plan does not refine one.
    """
    if not plan.refines:
        if first is not None:
            raise UsageError(
                f"the plan of {plan.name!r} does not refine a first stage, and one is given: make "
                "the plan for the second stage of a cascade, or leave it out"
            )
        return
    if first is None:
        raise needs_first_stage(plan)
    missing = [case.id for case in manifest.training if case.id not in first.label_maps]
    if missing:
        raise UsageError(
            f"{len(missing)} training cases have no label map of the first stage, such as "
            f"{missing[0]!r}: train it on all folds"
        )


def stage_identity(first: FirstStage | None) -> dict[str, str]:
    """Part of a run's identity: another first stage makes another training."""
    return {} if first is None else {"first_stage": ModelPackage.load(first.package).hash}
