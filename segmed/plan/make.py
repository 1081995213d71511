"""From the facts of an image set to a plan, with the reason for each choice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from segmed.architectures import PlannedInput
from segmed.doors import checked
from segmed.errors import UsageError, unknown_name
from segmed.given import manifest_of
from segmed.manifest.schema import Manifest
from segmed.plan.case_facts import CaseFacts
from segmed.plan.coarse_axis import OwnGrid, own_grid
from segmed.plan.fingerprint import Fingerprint, gather, survey
from segmed.plan.mirroring import plan_mirroring, sides_of
from segmed.plan.networks import BASE_WIDTH, MANY_LABELS, Size, plan_networks, plan_registered
from segmed.plan.preprocessing_rules import plan_preprocessing, with_bias_correction
from segmed.plan.recipe import plan_rare_labels, plan_recipe
from segmed.plan.resampled import losses_in_words, lost_structures
from segmed.plan.resources import DEFAULT_MEMORY_GB, Resources, default_resources
from segmed.plan.scale import (
    DatasetScale,
    Scale,
    explain_patch,
    explain_spacing,
    shows_all_labels,
)
from segmed.plan.schema import Inference, Plan
from segmed.plan.stages import Stage, explain_stage, require_stage, require_use
from segmed.plan.topology import plan_topology
from segmed.plan.within_memory import StepMemory, narrowed, scale_within

log = logging.getLogger(__name__)

SLICEWISE_RATIO = 4.0
"""Volumes this anisotropic, and with few slices, are better segmented slice by slice."""

SLICEWISE_SLICES = 16
"""What "few slices" means."""


@dataclass(frozen=True)
class _Choice:
    """Spatial decisions, gathered."""

    spatial_dims: Literal[2, 3]
    slice_axis: int | None
    why: str


@checked("manifest")
def make_plan(
    manifest: Manifest | Path | str,
    *,
    spatial_dims: Literal[2, 3] | None = None,
    memory_gb: float | None = None,
    size: Size = "small",
    bias_correction: bool = False,
    flips: Sequence[int] | None = None,
    resources: Resources | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Plan:
    """Decide spacing, patch, intensities, networks and recipe from the training cases.

    Args:
        manifest: The image set, or the path of its manifest.
        spatial_dims: 2 or 3 to insist; otherwise decided from the images.
        memory_gb: Memory that a training step may take, in GB.
        size: `small` networks for a CPU or short budgets, `full` ones for a GPU, `residual` ones
            (residual encoders, as nnU-Net's ResEnc) for a GPU and long trainings.
        bias_correction: Clear MR channels of their bias field (N4) before anything else.
        flips: Axes along which images may be mirrored; found from the labels' names if left out.
        resources: Time and device of one training; ten CPU minutes for `small` networks and eight
            hours on a GPU for others where they are not stated.
        progress: Called with cases looked at and cases in all.

    Returns:
        The plan, with reasons.

    Raises:
        UsageError: The wish contradicts the images (3D of rasters, bias correction without an MR
            channel), or the memory is too little.
        ManifestError: A training case cannot be read, or would have a size out of all bounds.
    """
    manifest = manifest_of(manifest)
    if spatial_dims not in (None, 2, 3):
        raise UsageError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}")
    if size not in get_args(Size):
        raise unknown_name("size", str(size), get_args(Size))
    if memory_gb is not None and memory_gb <= 0:
        raise UsageError(f"--memory-gb must be positive, got {memory_gb}")
    return plan_of_cases(
        manifest,
        survey(manifest, progress=progress),
        spatial_dims=spatial_dims,
        memory_gb=memory_gb,
        size=size,
        bias_correction=bias_correction,
        flips=flips,
        resources=resources,
    )


def plan_of_cases(
    manifest: Manifest, cases: Sequence[CaseFacts], *, stage: Stage | None = None, **wishes: Any
) -> Plan:
    """A plan from the facts of each case; no file is read.

    Args:
        manifest: The image set.
        cases: From `survey`.
        stage: Part that the plan has in a cascade, see `segmed.plan.stages`.
        wishes: As for `decide_plan`.

    Returns:
        The plan, with reasons; structures that its spacing loses are named there and logged.

    Raises:
        UsageError: As for `decide_plan`; or the image set is none for a cascade.
        ManifestError: A case would have a size out of all bounds.
    """
    facts = gather(cases)
    plan = (
        decide_plan(manifest, facts, **wishes)
        if stage is None
        else decide_stage(manifest, facts, stage, **wishes)
    )
    if lost := lost_structures(manifest, cases, plan.preprocessing):
        reasons = plan.reasons | {"resampling": losses_in_words(lost)}
        log.warning("%s", reasons["resampling"])
        return plan.model_copy(update={"reasons": reasons})
    return plan


def decide_plan(
    manifest: Manifest,
    facts: Fingerprint,
    *,
    spatial_dims: Literal[2, 3] | None = None,
    memory_gb: float | None = None,
    size: Size = "small",
    bias_correction: bool = False,
    flips: Sequence[int] | None = None,
    resources: Resources | None = None,
) -> Plan:
    """Decide a plan from facts that were gathered before; no file is read.

    Args:
        manifest: The image set: its name, labels and channels.
        facts: What `gather` gave for it.
        spatial_dims: As for `make_plan`, like the rest.
        memory_gb: Memory that a training step may take, in GB.
        size: Size of the networks.
        bias_correction: Clear MR channels of their bias field first.
        flips: Axes along which images may be mirrored.
        resources: Time and device of one training.

    Returns:
        The plan, with reasons.

    Raises:
        UsageError: The wish contradicts the images, or the memory is too little.
    """
    return _decided(
        manifest,
        facts,
        _Wishes(spatial_dims, memory_gb, size, bias_correction, flips, resources),
    )


def decide_stage(manifest: Manifest, facts: Fingerprint, stage: Stage, **wishes: Any) -> Plan:
    """Decide the plan of a stage of a cascade from facts; no file is read.

    Args:
        manifest: The image set.
        facts: What `gather` gave for it.
        stage: See `segmed.plan.stages`.
        wishes: As for `decide_plan`.

    Raises:
        UsageError: As for `decide_plan`; or the set has no use for a cascade.
    """
    return _decided(manifest, facts, _Wishes(stage=stage, **wishes))


@dataclass(frozen=True)
class _Wishes:
    """Arguments of `decide_plan`, and the stage of a cascade."""

    spatial_dims: Literal[2, 3] | None = None
    memory_gb: float | None = None
    size: Size = "small"
    bias_correction: bool = False
    flips: Sequence[int] | None = None
    resources: Resources | None = None
    stage: Stage | None = None


def _decided(manifest: Manifest, facts: Fingerprint, wishes: _Wishes) -> Plan:
    memory_gb, size = wishes.memory_gb or DEFAULT_MEMORY_GB, wishes.size
    resources = wishes.resources or default_resources(size)
    choice = _choose_dimensions(facts, wishes.spatial_dims)
    reasons = {"spatial_dims": choice.why}
    require_stage(wishes.stage, manifest, choice.spatial_dims)
    refines = wishes.stage == "cascade"
    in_channels = len(manifest.channels) + (len(manifest.labels) if refines else 0)
    grid = own_grid(facts, slice_axis=choice.slice_axis)
    preprocessing = plan_preprocessing(manifest, facts, grid.spacing_mm, reasons)
    if wishes.bias_correction:
        preprocessing = with_bias_correction(preprocessing, manifest, reasons)
    mirroring = plan_mirroring(
        manifest.labels, choice.spatial_dims, choice.slice_axis, wish=wishes.flips
    )
    reasons["recipe.augmentation.flip_axes"] = mirroring.why
    is_sided = sides_of(manifest.labels) is not None
    crop = preprocessing.crop_nonzero
    subject = _subject(manifest, facts, choice, grid, size=size, crop=crop, is_sided=is_sided)
    subject = replace(subject, in_channels=in_channels)
    memory = StepMemory(memory_gb, size, resources.device, in_channels, len(manifest.labels) + 1)
    scale, own = _scale(subject, memory, resources, wishes.stage)
    subject = replace(subject, stage=wishes.stage)
    if wishes.stage is None:
        why = (explain_spacing(scale, own, facts, resources), grid.why)
    else:
        why = (explain_stage(wishes.stage, scale, own), grid.why)
    reasons["preprocessing.spacing_mm"] = "; ".join(filter(None, why))
    reasons["patch_size"] = explain_patch(scale, subject, resources, memory_gb)
    spacing_mm = dict(zip(_network_axes(facts, choice), scale.spacing_mm, strict=True))
    spacing_mm = dict(enumerate(preprocessing.spacing_mm)) | spacing_mm
    preprocessing = preprocessing.model_copy(update={"spacing_mm": tuple(spacing_mm.values())})
    topology = plan_topology(scale.patch_size, scale.spacing_mm)
    reasons["networks"] = (
        f"{len(topology.strides)} levels: an axis is halved while it is not much coarser than the "
        f"others and keeps 4 voxels; {size!r} widths start at {BASE_WIDTH[size]} features"
    )
    recipe = plan_recipe(
        size,
        scale,
        facts,
        memory=memory,
        shows_all=shows_all_labels(scale, subject),
        flips=mirroring.axes,
        reasons=reasons,
    )
    networks = narrowed(
        plan_networks(
            topology,
            patch_size=scale.patch_size,
            spacing_mm=scale.spacing_mm,
            size=size,
            num_labels=len(manifest.labels),
        ),
        memory,
        patch_size=scale.patch_size,
        batch_size=recipe.batch_size,
        reasons=reasons,
    )
    if rare := plan_rare_labels(manifest.labels, facts, reasons):
        recipe = recipe.model_copy(update={"rare_labels": rare})
    if manifest.encoding.has_regions:
        reasons["labels"] = (
            "regions: each has a sigmoid of its own, and in the label map a region is painted over "
            "those listed before it"
        )
    if manifest.ignore_value is not None:
        reasons["ignore_value"] = (
            "voxels of this value are not annotated: they enter neither loss nor scores, and no "
            "patch is centred on one"
        )
    return Plan(
        name=manifest.name,
        spatial_dims=choice.spatial_dims,
        channels=manifest.channels,
        labels=manifest.labels,
        ignore_value=manifest.ignore_value,
        preprocessing=preprocessing,
        patch_size=scale.patch_size,
        slice_axis=choice.slice_axis,
        refines=refines,
        networks={
            **networks,
            **plan_registered(
                PlannedInput(
                    spatial_dims=choice.spatial_dims,
                    in_channels=in_channels,
                    num_classes=manifest.encoding.num_channels,
                    patch_size=scale.patch_size,
                    spacing_mm=scale.spacing_mm,
                    strides=topology.strides,
                    size="small" if size == "small" else "full",
                )
            ),
        },
        recipe=recipe,
        inference=Inference(mirror_axes=mirroring.axes),
        fingerprint=facts.as_record(),
        planned_for=resources.as_record(),
        reasons=reasons,
    )


def _scale(
    subject: DatasetScale, memory: StepMemory, resources: Resources, stage: Stage | None
) -> tuple[Scale, Scale]:
    """Spacing and patch of a plan or a stage, and the best ones at the images' own spacing."""
    single, own = scale_within(subject, memory, resources)
    if stage is None:
        return single, own
    require_use(stage, single, own)
    return scale_within(replace(subject, stage=stage), memory, resources)


def _subject(
    manifest: Manifest,
    facts: Fingerprint,
    choice: _Choice,
    grid: OwnGrid,
    *,
    size: Size,
    crop: bool,
    is_sided: bool,
) -> DatasetScale:
    """Images and structures on the network's axes."""
    axes = _network_axes(facts, choice)
    stored = facts.median_filled_shape if crop else facts.median_shape
    present = [row for row, extent in enumerate(facts.structure_extent_mm) if extent]
    thickness = [facts.structure_thickness_mm[row] for row in present]
    thickness += [facts.gap_thickness_mm] if facts.gap_thickness_mm else []
    return DatasetScale(
        shape=tuple(stored[axis] * grid.growth[axis] for axis in axes),
        spacing_mm=tuple(grid.spacing_mm[axis] for axis in axes),
        extent_mm=np.array([facts.structure_extent_mm[row] for row in present])[:, axes],
        thickness_mm=np.array(thickness)[:, axes],
        needs_place=is_sided or len(manifest.labels) >= MANY_LABELS,
        in_channels=len(manifest.channels),
        num_classes=manifest.encoding.num_channels,
        labels_mm=_labels_mm(manifest, facts, axes, size),
    )


def _labels_mm(
    manifest: Manifest, facts: Fingerprint, axes: Sequence[int], size: Size
) -> tuple[float, ...]:
    """Box around all labels on the network's axes, for small networks of many labels."""
    if size != "small" or len(manifest.labels) < MANY_LABELS or not facts.labels_extent_mm:
        return ()
    return tuple(facts.labels_extent_mm[axis] for axis in axes)


def _choose_dimensions(facts: Fingerprint, wish: Literal[2, 3] | None) -> _Choice:
    if facts.is_raster:
        if wish == 3:
            raise UsageError(
                "3D networks requested (--spatial-dims, --dims), but the images are two-dimensional"
            )
        return _Choice(2, None, "the images are two-dimensional")
    coarsest = max(range(3), key=lambda axis: facts.median_spacing_mm[axis])
    ratio = facts.median_spacing_mm[coarsest] / min(facts.median_spacing_mm)
    slices = facts.median_shape[coarsest]
    evidence = f"voxels are {ratio:.1f} times longer along axis {coarsest}, {slices:.0f} slices"
    slicewise = ratio > SLICEWISE_RATIO and slices < SLICEWISE_SLICES
    if wish == 2 or (wish is None and slicewise):
        return _Choice(
            2, coarsest, f"slice by slice: {evidence}" if wish is None else "as requested"
        )
    return _Choice(3, None, f"volumes: {evidence}" if wish is None else "as requested")


def _network_axes(facts: Fingerprint, choice: _Choice) -> list[int]:
    return [axis for axis in range(len(facts.median_shape)) if axis != choice.slice_axis]
