"""Batch, augmentation and averaging: how the networks of a plan are trained."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from segmed.plan.fingerprint import Fingerprint
from segmed.plan.networks import Size
from segmed.plan.scale import BATCH_SIZE, Scale
from segmed.plan.schema import Augmentation, Recipe
from segmed.plan.within_memory import StepMemory
from segmed.structures import LabelClass

COARSE_AXIS_RATIO = 3.0
"""An axis this many times coarser than the finest is resampled apart."""

MAX_BATCH_SHARE = 0.05
"""Largest share of all training voxels in one batch of a `full` network."""

RARE_SHARE = 0.25
"""A label that fewer cases have is rare: its cases are drawn as often as if so many had it."""

MOST_OFTEN = 10.0
"""A case is drawn at most so many times as often as others: it is learned by heart sooner."""

SHOWN = 6
"""Rare labels that a plan's reason names."""

CENTRED = 0.8
"""Share of patches near the middle of many labels; the others show what lies around them."""

GENTLE = {
    "p_spatial": 0.1,
    "p_noise": 0.05,
    "p_blur": 0.05,
    "p_brightness": 0.1,
    "p_contrast": 0.1,
    "p_gamma": 0.1,
    "p_low_resolution": 0.05,
}
"""Probabilities of changes for `small` networks. With those of `full` networks they learned more
slowly and no better, even where each case was seen 150 times (left_atrium, 214 CPU s of a training
of 300: Dice 0.901 against 0.904)."""


def plan_recipe(
    size: Size,
    scale: Scale,
    facts: Fingerprint,
    *,
    memory: StepMemory,
    shows_all: bool,
    flips: tuple[int, ...],
    reasons: dict[str, str],
) -> Recipe:
    """Batch, foreground share, averaging and augmentation.

    Args:
        size: Size of the networks.
        scale: Spacing and patch, with the steps that the time allows.
        facts: The fingerprint.
        memory: Memory of a training step.
        shows_all: A patch shows all of many labels together.
        flips: Axes along which images may be mirrored.
        reasons: The plan's reasons; those of the recipe are added.
    """
    batch_size = _plan_batch(size, scale, facts, memory, reasons)
    augmentation = _plan_augmentation(scale.spacing_mm, flips, reasons)
    reasons["recipe.foreground_fraction"] = (
        "this share of patches is centred on a label, for labels take up "
        f"{sum(facts.class_share):.2%} of the voxels"
    )
    reasons["recipe.ema_decay"] = (
        "averaged weights steady a short training"
        if size == "small"
        else "none: a long training ends at a small learning rate, which averages by itself"
    )
    reasons["recipe.starts_from_shares"] = (
        "the outputs start at the shares of the classes in patches: no step is spent on learning "
        "how rare each one is"
    )
    if size != "small":
        return Recipe(
            batch_size=batch_size,
            iterations_per_epoch=100,
            augmentation=augmentation,
            starts_from_shares=True,
        )
    if shows_all:
        reasons["recipe.centred_fraction"] = (
            "a patch shows all labels: near their middle each is seen in its place in the whole"
        )
    return Recipe(
        batch_size=batch_size,
        starts_from_shares=True,
        centred_fraction=CENTRED if shows_all else 0.0,
        foreground_fraction=0.66,
        ema_decay=0.99,
        augmentation=augmentation.model_copy(update=GENTLE),
    )


def plan_rare_labels(
    labels: Sequence[LabelClass], facts: Fingerprint, reasons: dict[str, str]
) -> dict[int, float]:
    """Factors by which cases with rare labels are drawn more often.

    A case with a label that a share s of the cases has counts `RARE_SHARE` / s times, so that the
    label is about as frequent in training as one that this share of the cases has.

    Args:
        labels: Structures, in the order of the facts.
        facts: The fingerprint.
        reasons: The plan's reasons; that of rare labels is added if there are any.

    Returns:
        Factors above 1 by label value.
    """
    rare = {
        label: min(MOST_OFTEN, RARE_SHARE / share)
        for label, share in zip(labels, facts.case_share, strict=False)
        if 0 < share < RARE_SHARE
    }
    if rare:
        shares = dict(zip(labels, facts.case_share, strict=False))
        named = [f"{label.name} in {shares[label]:.1%}" for label in list(rare)[:SHOWN]]
        more = f" and {len(rare) - SHOWN} more" if len(rare) > SHOWN else ""
        reasons["recipe.rare_labels"] = (
            f"labels that fewer than {RARE_SHARE:.0%} of the cases have ({', '.join(named)}{more}):"
            f" their cases are drawn as often as if {RARE_SHARE:.0%} had them, at most "
            f"{MOST_OFTEN:g} times as often as others"
        )
    return {label.value: round(factor, 3) for label, factor in rare.items()}


def _plan_batch(
    size: Size, scale: Scale, facts: Fingerprint, memory: StepMemory, reasons: dict[str, str]
) -> int:
    """Patches a step: few for small networks; else what memory leaves once patches are whole."""
    least = BATCH_SIZE[len(scale.patch_size)]
    field = "recipe.batch_size"
    if size == "small":
        reasons[field] = "few patches a step: more steps in the same time"
        return least
    held = memory.batch_held(scale, least)
    voxels = facts.num_cases * prod(scale.shape)
    of_all = int(MAX_BATCH_SHARE * voxels / prod(scale.patch_size))
    chosen = max(least, min(held, of_all))
    reasons[field] = (
        f"{memory.memory_gb:g} GB fit {held} such patches; a batch is at least {least}, and at "
        f"most {MAX_BATCH_SHARE:.0%} of all training voxels ({of_all})"
    )
    return chosen


def _plan_augmentation(
    spacing_mm: Sequence[float], flips: tuple[int, ...], reasons: dict[str, str]
) -> Augmentation:
    """Rotation is small about axes that would mix coarse and fine directions."""
    reasons["recipe.augmentation.rotation_deg"] = (
        "small about axes that would mix directions of very different voxel edges"
    )
    if len(spacing_mm) == 2:
        return Augmentation(flip_axes=flips, rotation_deg=(30.0,))
    anisotropic = max(spacing_mm) > COARSE_AXIS_RATIO * min(spacing_mm)
    coarsest = spacing_mm.index(max(spacing_mm)) if anisotropic else None
    rotation = tuple(
        20.0 if coarsest is None else (30.0 if axis == coarsest else 3.0) for axis in range(3)
    )
    return Augmentation(flip_axes=flips, rotation_deg=rotation)
