"""From the facts of an image set to a plan, with the reason for each choice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from segmed.errors import UsageError
from segmed.manifest.schema import Manifest
from segmed.plan.fingerprint import Fingerprint, gather, survey
from segmed.plan.mirroring import plan_mirroring
from segmed.plan.networks import BASE_WIDTH, Size, plan_networks
from segmed.plan.resampled import losses_in_words, lost_structures
from segmed.plan.schema import (
    Augmentation,
    Inference,
    Intensity,
    Plan,
    Preprocessing,
    Recipe,
)
from segmed.plan.topology import plan_patch, plan_topology

log = logging.getLogger(__name__)

COARSE_AXIS_RATIO = 3.0
"""An axis this many times coarser than the finest is resampled apart."""

SLICEWISE_RATIO = 4.0
"""Volumes this anisotropic, and with few slices, are better segmented slice by slice."""

SLICEWISE_SLICES = 16
"""What "few slices" means."""

ACTIVATION_BYTES_PER_VOXEL = 320
"""Training memory of one voxel for each feature of the finest level, in bytes: two encoder and two
decoder convolutions with norm, activation and gradients, the coarser levels included."""

BATCH_SIZE = {2: 8, 3: 2}
"""Patches a step, by spatial dimensions; `full` networks take more where memory allows."""

MAX_BATCH_SHARE = 0.05
"""Largest share of all training voxels in one batch of a `full` network."""

CROP_SHARE = 0.25
"""Volumes of which more is exactly zero are cropped."""

SMALL_PATCH_VOXELS = {2: 160 * 160, 3: 40_000}
"""Voxels of a patch for `small` networks, by spatial dimensions: more steps in the same time."""

GENTLE = {
    "p_spatial": 0.1,
    "p_noise": 0.05,
    "p_blur": 0.05,
    "p_brightness": 0.1,
    "p_contrast": 0.1,
    "p_gamma": 0.1,
    "p_low_resolution": 0.05,
}
"""Probabilities of changes in trainings of minutes."""

DEFAULT_MEMORY_GB = 8.0
"""Memory a plan is made for when none is stated, in GB."""


@dataclass(frozen=True)
class _Choice:
    """Spatial decisions, gathered."""

    spatial_dims: Literal[2, 3]
    slice_axis: int | None
    why: str


def make_plan(
    manifest: Manifest,
    *,
    spatial_dims: Literal[2, 3] | None = None,
    memory_gb: float | None = None,
    size: Size = "small",
    bias_correction: bool = False,
    flips: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Plan:
    """Decide spacing, patch, intensities, networks and recipe from the training cases.

    Args:
        manifest: The image set.
        spatial_dims: 2 or 3 to insist; otherwise decided from the images.
        memory_gb: Memory that a training step may take, in GB.
        size: `small` networks for a CPU or short budgets, `full` ones for a GPU.
        bias_correction: Clear MR channels of their bias field (N4) before anything else.
        flips: Axes along which images may be mirrored; found from the labels' names if left out.
        progress: Called with cases looked at and cases in all.

    Returns:
        The plan, with reasons.

    Raises:
        UsageError: The wish contradicts the images (3D of rasters, bias correction without an MR
            channel), or the memory is too little.
        ManifestError: A training case cannot be read, or would have a size out of all bounds.
    """
    memory_gb = DEFAULT_MEMORY_GB if memory_gb is None else memory_gb
    if memory_gb <= 0:
        raise UsageError(f"--memory-gb must be positive, got {memory_gb}")
    cases = survey(manifest, progress=progress)
    facts = gather(cases)
    choice = _choose_dimensions(facts, spatial_dims)
    reasons = {"spatial_dims": choice.why}
    preprocessing = _plan_preprocessing(manifest, facts, choice, reasons)
    if bias_correction:
        preprocessing = _with_bias_correction(preprocessing, manifest, reasons)
    if lost := lost_structures(manifest, cases, preprocessing):
        reasons["resampling"] = losses_in_words(lost)
        log.warning("%s", reasons["resampling"])
    axes = _network_axes(facts, choice)
    spacing_mm = [preprocessing.spacing_mm[axis] for axis in axes]
    stored = facts.median_filled_shape if preprocessing.crop_nonzero else facts.median_shape
    shape = [
        stored[axis] * facts.median_spacing_mm[axis] / preprocessing.spacing_mm[axis]
        for axis in axes
    ]
    patch_size = _plan_patch(choice, size, memory_gb, shape, spacing_mm, reasons)
    batch_size = _plan_batch(choice, size, memory_gb, patch_size, facts, reasons)
    topology = plan_topology(patch_size, spacing_mm)
    reasons["networks"] = (
        f"{len(topology.strides)} levels: an axis is halved while it is not much coarser than the "
        f"others and keeps 4 voxels; {size!r} widths start at {BASE_WIDTH[size]} features"
    )
    mirroring = plan_mirroring(manifest.labels, choice.spatial_dims, choice.slice_axis, wish=flips)
    reasons["recipe.augmentation.flip_axes"] = mirroring.why
    augmentation = _plan_augmentation(spacing_mm, patch_size, mirroring.axes, reasons)
    return Plan(
        name=manifest.name,
        spatial_dims=choice.spatial_dims,
        channels=manifest.channels,
        labels=manifest.labels,
        preprocessing=preprocessing,
        patch_size=patch_size,
        slice_axis=choice.slice_axis,
        networks=plan_networks(topology, patch_size=patch_size, spacing_mm=spacing_mm, size=size),
        recipe=_plan_recipe(size, batch_size, augmentation, facts, reasons),
        inference=Inference(mirror_axes=mirroring.axes),
        fingerprint=facts.as_record(),
        reasons=reasons,
    )


def _memory_voxels(size: Size, memory_gb: float) -> float:
    """Voxels of all patches of one step that a memory holds."""
    return memory_gb * 1e9 / (BASE_WIDTH[size] * ACTIVATION_BYTES_PER_VOXEL)


def _plan_patch(
    choice: _Choice,
    size: Size,
    memory_gb: float,
    shape: Sequence[float],
    spacing_mm: Sequence[float],
    reasons: dict[str, str],
) -> tuple[int, ...]:
    """The largest patch of the typical image that memory (or the small networks' time) allows."""
    batch_size = BATCH_SIZE[choice.spatial_dims]
    voxels = _memory_voxels(size, memory_gb) / batch_size
    told = f"as much of it as {memory_gb:g} GB holds at batch {batch_size}"
    if size == "small" and voxels > SMALL_PATCH_VOXELS[choice.spatial_dims]:
        voxels = SMALL_PATCH_VOXELS[choice.spatial_dims]
        told = f"about {voxels:,} voxels of it, so that a CPU takes many steps"
    patch_size = plan_patch(shape, spacing_mm, max_voxels=voxels)
    if min(patch_size) < 4 and min(shape) >= 8:
        raise UsageError(f"{memory_gb} GB is too little for a useful patch; give more memory")
    reasons["patch_size"] = (
        f"the median image is {'x'.join(f'{n:.0f}' for n in shape)} voxels at this spacing; "
        f"{told}, rounded to the strides"
    )
    return patch_size


def _plan_batch(
    choice: _Choice,
    size: Size,
    memory_gb: float,
    patch_size: Sequence[int],
    facts: Fingerprint,
    reasons: dict[str, str],
) -> int:
    """Patches a step: few for small networks; else what memory leaves once patches are whole."""
    least = BATCH_SIZE[choice.spatial_dims]
    field = "recipe.batch_size"
    if size == "small":
        reasons[field] = "few patches a step: more steps in the same time"
        return least
    held = int(_memory_voxels(size, memory_gb) / prod(patch_size))
    of_all = int(MAX_BATCH_SHARE * facts.num_cases * prod(facts.median_shape) / prod(patch_size))
    chosen = max(least, min(held, of_all))
    reasons[field] = (
        f"{memory_gb:g} GB hold {held} such patches; a batch is at least {least}, and at most "
        f"{MAX_BATCH_SHARE:.0%} of all training voxels ({of_all})"
    )
    return chosen


def _plan_recipe(
    size: Size,
    batch_size: int,
    augmentation: Augmentation,
    facts: Fingerprint,
    reasons: dict[str, str],
) -> Recipe:
    """Short trainings of small networks see little twice: change less, average the weights."""
    reasons["recipe.foreground_fraction"] = (
        "this share of patches is centred on a label, for labels take up "
        f"{sum(facts.class_share):.2%} of the voxels"
    )
    reasons["recipe.ema_decay"] = (
        "averaged weights steady a short training"
        if size == "small"
        else "none: a long training ends at a small learning rate, which averages by itself"
    )
    if size == "full":
        return Recipe(batch_size=batch_size, iterations_per_epoch=100, augmentation=augmentation)
    gentler = augmentation.model_copy(update=GENTLE)
    return Recipe(
        batch_size=batch_size, foreground_fraction=0.66, ema_decay=0.99, augmentation=gentler
    )


def _choose_dimensions(facts: Fingerprint, wish: Literal[2, 3] | None) -> _Choice:
    if facts.is_raster:
        if wish == 3:
            raise UsageError("--spatial-dims 3 asked for, but the images are two-dimensional")
        return _Choice(2, None, "the images are two-dimensional")
    coarsest = max(range(3), key=lambda axis: facts.median_spacing_mm[axis])
    ratio = facts.median_spacing_mm[coarsest] / min(facts.median_spacing_mm)
    slices = facts.median_shape[coarsest]
    told = f"voxels are {ratio:.1f} times longer along axis {coarsest}, {slices:.0f} slices"
    slicewise = ratio > SLICEWISE_RATIO and slices < SLICEWISE_SLICES
    if wish == 2 or (wish is None and slicewise):
        return _Choice(2, coarsest, f"slice by slice: {told}" if wish is None else "as asked for")
    return _Choice(3, None, f"volumes: {told}" if wish is None else "as asked for")


def _network_axes(facts: Fingerprint, choice: _Choice) -> list[int]:
    return [axis for axis in range(len(facts.median_shape)) if axis != choice.slice_axis]


def _plan_preprocessing(
    manifest: Manifest, facts: Fingerprint, choice: _Choice, reasons: dict[str, str]
) -> Preprocessing:
    spacing_mm = facts.median_spacing_mm
    reasons["preprocessing.spacing_mm"] = (
        f"the median of {facts.num_cases} training cases, whose median size is "
        f"{'x'.join(f'{n:.0f}' for n in facts.median_shape)} voxels"
    )
    coarsest = max(range(len(spacing_mm)), key=lambda axis: spacing_mm[axis])
    is_anisotropic = spacing_mm[coarsest] > COARSE_AXIS_RATIO * min(spacing_mm)
    if is_anisotropic:
        reasons["preprocessing.anisotropic_axis"] = (
            f"voxels are more than {COARSE_AXIS_RATIO:g} times longer along this axis: it is "
            "resampled apart, without cubic overshoot between far slices"
        )
    crop = facts.background_zero > CROP_SHARE and not facts.is_raster
    intensity = tuple(
        _plan_intensity(channel.modality, statistics, nonzero=crop)
        for channel, statistics in zip(manifest.channels, facts.intensity, strict=True)
    )
    reasons["preprocessing.intensity"] = (
        "CT is clipped to the 0.5 and 99.5 percentiles of the training foreground and scaled by "
        "its mean and deviation; everything else by each image's own mean and deviation"
        + (" of voxels that are not zero" if crop else "")
    )
    if not facts.is_raster:
        reasons["preprocessing.crop_nonzero"] = (
            f"{facts.background_zero:.0%} of a typical volume is exactly zero; cropped is what has "
            f"more than {CROP_SHARE:.0%}"
        )
        stored = ", ".join(f"{count} {code}" for code, count in sorted(facts.orientations.items()))
        reasons["preprocessing.orientation"] = f"one frame for all images, stored as {stored}"
    reasons["preprocessing.image_order"] = (
        "cubic B-spline for images; labels always by nearest neighbour, without new values"
    )
    reasons["preprocessing.bias_correction"] = (
        "N4 is slow and helps MR only: asked for by --bias-correction"
    )
    return Preprocessing(
        orientation="" if facts.is_raster else "RAS",
        spacing_mm=spacing_mm,
        anisotropic_axis=coarsest if is_anisotropic else None,
        crop_nonzero=crop,
        intensity=intensity,
    )


def _with_bias_correction(
    preprocessing: Preprocessing, manifest: Manifest, reasons: dict[str, str]
) -> Preprocessing:
    names = [channel.name for channel in manifest.channels if channel.modality == "MR"]
    if not names:
        raise UsageError(
            "bias correction asked for, but no channel of the manifest has the modality MR"
        )
    reasons["preprocessing.bias_correction"] = f"N4 as asked for, on {', '.join(names)}"
    return preprocessing.model_copy(update={"bias_correction": True})


def _plan_intensity(modality: str, statistics: dict[str, float], *, nonzero: bool) -> Intensity:
    if modality == "CT":
        return Intensity(
            scheme="ct",
            low=statistics["p00_5"],
            high=statistics["p99_5"],
            mean=statistics["mean"],
            std=max(statistics["std"], 1e-3),
        )
    return Intensity(scheme="zscore", nonzero=nonzero)


def _plan_augmentation(
    spacing_mm: Sequence[float],
    patch_size: Sequence[int],
    flips: tuple[int, ...],
    reasons: dict[str, str],
) -> Augmentation:
    """Rotation is small about axes that would mix coarse and fine directions."""
    reasons["recipe.augmentation.rotation_deg"] = (
        "small about axes that would mix directions of very different voxel edges"
    )
    if len(patch_size) == 2:
        return Augmentation(flip_axes=flips, rotation_deg=(30.0,))
    anisotropic = max(spacing_mm) > COARSE_AXIS_RATIO * min(spacing_mm)
    coarsest = spacing_mm.index(max(spacing_mm)) if anisotropic else None
    rotation = tuple(
        20.0 if coarsest is None else (30.0 if axis == coarsest else 3.0) for axis in range(3)
    )
    return Augmentation(flip_axes=flips, rotation_deg=rotation)
