"""Cascades at prediction: the label map of a first stage enters the input of the second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segmed.errors import UsageError
from segmed.package import ModelPackage
from segmed.package.cascade import stages_of
from segmed.transforms.grid_transform import Prepared


@dataclass(frozen=True, repr=False)
class PreparedForStages(Prepared):
    """One image prepared for both stages of a cascade; tensor and transform are for the second.

    Attributes:
        first: The image as prepared for the first stage.
    """

    first: Prepared


def first_stage_of(packages: Sequence[ModelPackage]) -> ModelPackage | None:
    """The first stage of a cascade; None for packages of one stage.

    Args:
        packages: The packages of a predictor.

    Raises:
        UsageError: A cascade is among several packages, or its first stage is missing.
    """
    number = next((n for n, one in enumerate(packages, start=1) if one.plan.refines), None)
    if number is None:
        return None
    if len(packages) > 1:
        raise UsageError(
            f"package {number} ({packages[number - 1].architecture}) is a cascade, which is not "
            "averaged with other models: use it alone"
        )
    return stages_of(packages[0])[1]
