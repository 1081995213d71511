"""Stages of a cascade: spacing and patch of each, and which image sets have a use for one.

The first stage sees the whole on a coarse grid; the second refines its label map on the images' own
grid, where a patch shows a part. Names are those of nnU-Net: `lowres` is the first stage, `cascade`
the second, and `fullres` the single stage that both are held against.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, prod
from typing import TYPE_CHECKING, Literal

from segmed.errors import UsageError
from segmed.manifest.schema import Manifest

if TYPE_CHECKING:
    from segmed.plan.scale import DatasetScale, Scale

Stage = Literal["fullres", "lowres", "cascade"]

SEEN_ALREADY = 0.75
"""A patch that covers this share of what structures need at the images' own spacing needs no first
stage."""

SEEN_BY_FIRST = 0.9
"""Share that a patch of the first stage should cover; nnU-Net asks for a quarter of the volume."""

MOST_LABELS = 32
"""Structures at most: each is a channel of the second stage's input."""


def require_stage(stage: Stage | None, manifest: Manifest, spatial_dims: int) -> None:
    """Refuse a cascade of an image set that can have none.

    Args:
        stage: The stage to plan; None outside a cascade.
        manifest: The image set.
        spatial_dims: Dimensions of its plan.

    Raises:
        UsageError: The networks are two-dimensional, or there are too many structures.
    """
    if stage is None:
        return
    if spatial_dims != 3:
        raise UsageError(
            "a cascade (--cascade) is for volumes with 3D networks, and this set has a 2D plan"
        )
    if len(manifest.labels) > MOST_LABELS:
        raise UsageError(
            f"a cascade (--cascade) gives its second stage one more channel a structure: "
            f"{len(manifest.labels)} structures are too many, at most {MOST_LABELS} are possible"
        )


def scale_of_stage(
    stage: Stage, chosen: Scale, own: Scale, *, coarser: Sequence[Scale], at_own: Sequence[Scale]
) -> Scale:
    """Spacing and patch of a stage.

    Args:
        stage: The stage.
        chosen: What a single network would have.
        own: The best patch at the images' own spacing.
        coarser: The best patch of each coarser spacing, the finest spacing first.
        at_own: Patches at the images' own spacing, from the smallest to the largest. The second
            stage has one of about as many voxels as the first: what is around it is known.
    """
    if stage == "fullres":
        return own
    first = chosen
    if chosen is own:
        enough = (scale for scale in coarser if scale.covered >= SEEN_BY_FIRST)
        first = next(enough, max(coarser, key=lambda scale: scale.covered))
    if stage == "lowres":
        return first
    voxels = prod(first.patch_size)
    return min(at_own, key=lambda scale: abs(log(prod(scale.patch_size) / voxels)))


def require_use(stage: Stage | None, single: Scale, own: Scale) -> None:
    """Refuse a cascade where a patch shows enough without one.

    Args:
        stage: The stage to plan; None outside a cascade.
        single: Spacing and patch that a single network would have.
        own: The best patch at the images' own spacing.

    Raises:
        UsageError: A single network has the images' own spacing, and sees nearly all.
    """
    is_own = single.spacing_mm == own.spacing_mm
    if stage in ("lowres", "cascade") and is_own and own.covered >= SEEN_ALREADY:
        raise UsageError(
            f"a patch at the images' own spacing covers {own.covered:.0%} of what structures need "
            "around them: a first stage would show no more; compare without --cascade"
        )


def explain_stage(stage: Stage, scale: Scale, own: Scale) -> str:
    """The reason of a stage's spacing, for the plan file."""
    if stage == "lowres":
        return (
            f"first stage of a cascade: its patch covers {scale.covered:.0%} of what structures "
            f"need around them, a patch at the images' own spacing {own.covered:.0%}"
        )
    if stage == "cascade":
        return (
            "second stage of a cascade: the images' own spacing; what is around a patch is known "
            "from the label map of the first stage"
        )
    return "the images' own spacing, as a single stage that a cascade is held against"


def cascade_hint(scale: Scale, subject: DatasetScale) -> str:
    """Remark on a plan whose set has a use for a cascade; empty for others."""
    is_coarse = min(scale.spacing_mm) > min(subject.spacing_mm)
    has_use = is_coarse or scale.covered < SEEN_ALREADY
    if subject.stage is not None or len(scale.patch_size) != 3 or not has_use:
        return ""
    if len(subject.extent_mm) > MOST_LABELS:
        return ""
    gain = (
        "a second stage at the images' own spacing"
        if is_coarse
        else "a first stage on a coarser grid, whose patch shows the whole"
    )
    return f"; `segmed compare --cascade` tries {gain}"
