"""From the facts of an image set to a plan, with the reason for each choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from segmed.errors import UsageError
from segmed.manifest.schema import Manifest
from segmed.plan.fingerprint import Fingerprint, take_fingerprint
from segmed.plan.networks import BASE_WIDTH, Size, plan_networks
from segmed.plan.schema import (
    Augmentation,
    Inference,
    Intensity,
    Plan,
    Preprocessing,
    Recipe,
)
from segmed.plan.topology import plan_patch, plan_topology

COARSE_AXIS_RATIO = 3.0
"""An axis this many times coarser than the finest is resampled apart."""

SLICEWISE_RATIO = 4.0
"""Volumes this anisotropic, and with few slices, are better segmented slice by slice."""

SLICEWISE_SLICES = 16
"""What "few slices" means."""

ACTIVATION_BYTES_PER_VOXEL = 320
"""Training memory of one voxel for each feature of the finest level, in bytes: two encoder and two
decoder convolutions with norm, activation and gradients, the coarser levels included."""

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

MIRRORED_WORDS = ("left", "right", "_l", "_r", "lh_", "rh_")
"""Parts of label names that tell the sides of a body apart."""


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
    progress: Callable[[int, int], None] | None = None,
) -> Plan:
    """Decide spacing, patch, intensities, networks and recipe from the training cases.

    Args:
        manifest: The image set.
        spatial_dims: 2 or 3 to insist; otherwise decided from the images.
        memory_gb: Memory that a training step may take, in GB.
        size: `small` networks for a CPU or short budgets, `full` ones for a GPU.
        progress: Called with cases looked at and cases in all.

    Returns:
        The plan, with reasons.

    Raises:
        UsageError: The wish contradicts the images (3D of rasters), or the memory is too little.
        ManifestError: A training case cannot be read.
    """
    memory_gb = DEFAULT_MEMORY_GB if memory_gb is None else memory_gb
    if memory_gb <= 0:
        raise UsageError(f"--memory-gb must be positive, got {memory_gb}")
    facts = take_fingerprint(manifest, progress=progress)
    choice = _choose_dimensions(facts, spatial_dims)
    reasons = {"spatial_dims": choice.why}
    preprocessing = _plan_preprocessing(manifest, facts, choice, reasons)
    axes = _network_axes(facts, choice)
    spacing_mm = [preprocessing.spacing_mm[axis] for axis in axes]
    shape = [
        facts.median_shape[axis] * facts.median_spacing_mm[axis] / preprocessing.spacing_mm[axis]
        for axis in axes
    ]
    batch_size = 2 if choice.spatial_dims == 3 else 8
    voxels = memory_gb * 1e9 / (batch_size * BASE_WIDTH[size] * ACTIVATION_BYTES_PER_VOXEL)
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
    topology = plan_topology(patch_size, spacing_mm)
    reasons["networks"] = (
        f"{len(topology.strides)} levels: an axis is halved while it is not much coarser than the "
        f"others and keeps 4 voxels; {size!r} widths start at {BASE_WIDTH[size]} features"
    )
    flips = _plan_flips(manifest, choice, reasons)
    return Plan(
        name=manifest.name,
        spatial_dims=choice.spatial_dims,
        channels=manifest.channels,
        labels=manifest.labels,
        preprocessing=preprocessing,
        patch_size=patch_size,
        slice_axis=choice.slice_axis,
        networks=plan_networks(topology, patch_size=patch_size, spacing_mm=spacing_mm, size=size),
        recipe=_plan_recipe(size, batch_size, _plan_augmentation(spacing_mm, patch_size, flips)),
        inference=Inference(mirror_axes=flips),
        fingerprint=facts.as_record(),
        reasons=reasons,
    )


def _plan_recipe(size: Size, batch_size: int, augmentation: Augmentation) -> Recipe:
    """Short trainings of small networks see little twice: change less, average the weights."""
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
    intensity = tuple(
        _plan_intensity(channel.modality, statistics)
        for channel, statistics in zip(manifest.channels, facts.intensity, strict=True)
    )
    reasons["preprocessing.intensity"] = (
        "CT is clipped to the 0.5 and 99.5 percentiles of the training foreground and scaled by "
        "its mean and deviation; everything else by each image's own mean and deviation"
    )
    crop = facts.background_zero > 0.25 and not facts.is_raster
    if crop:
        reasons["preprocessing.crop_nonzero"] = (
            f"{facts.background_zero:.0%} of a typical volume is exactly zero"
        )
    return Preprocessing(
        orientation="" if facts.is_raster else "RAS",
        spacing_mm=spacing_mm,
        anisotropic_axis=coarsest if is_anisotropic else None,
        crop_nonzero=crop,
        intensity=intensity,
    )


def _plan_intensity(modality: str, statistics: dict[str, float]) -> Intensity:
    if modality == "CT":
        return Intensity(
            scheme="ct",
            low=statistics["p00_5"],
            high=statistics["p99_5"],
            mean=statistics["mean"],
            std=max(statistics["std"], 1e-3),
        )
    return Intensity(scheme="zscore")


def _plan_flips(manifest: Manifest, choice: _Choice, reasons: dict[str, str]) -> tuple[int, ...]:
    """Axes along which a mirrored image is as likely as the original."""
    field = "recipe.augmentation.flip_axes"
    sided = [
        item.name
        for item in manifest.labels
        if any(word in item.name.lower() for word in MIRRORED_WORDS)
    ]
    if sided:
        reasons[field] = f"none: labels such as {sided[0]!r} tell the sides of the body apart"
        return ()
    if choice.slice_axis is None and choice.spatial_dims == 2:
        reasons[field] = "both axes: rasters have no planned anatomical frame and no sided labels"
        return (0, 1)
    if choice.slice_axis == 0:
        reasons[field] = "none: sagittal slices are not mirrored front to back or head to foot"
        return ()
    reasons[field] = "left-right only (the first axis in RAS): no label tells the sides apart"
    return (0,)


def _plan_augmentation(
    spacing_mm: Sequence[float], patch_size: Sequence[int], flips: tuple[int, ...]
) -> Augmentation:
    """Rotation is small about axes that would mix coarse and fine directions."""
    if len(patch_size) == 2:
        return Augmentation(flip_axes=flips, rotation_deg=(30.0,))
    anisotropic = max(spacing_mm) > COARSE_AXIS_RATIO * min(spacing_mm)
    coarsest = spacing_mm.index(max(spacing_mm)) if anisotropic else None
    rotation = tuple(
        20.0 if coarsest is None else (30.0 if axis == coarsest else 3.0) for axis in range(3)
    )
    return Augmentation(flip_axes=flips, rotation_deg=rotation)
