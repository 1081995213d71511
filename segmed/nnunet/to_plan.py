"""The plan of a model that nnU-Net trained: its rules in segmed's form."""

from __future__ import annotations

from dataclasses import asdict

from segmed.encoding import LabelEncoding
from segmed.errors import PackageError
from segmed.models.nnunet import NAME
from segmed.nnunet.folder import NnUNetFolder
from segmed.nnunet.plans import ChannelScaling, Configuration, LabelSet
from segmed.plan.schema import (
    Augmentation,
    Inference,
    Intensity,
    NetworkPlan,
    Plan,
    Preprocessing,
    Recipe,
)
from segmed.structures import Channel, LabelClass

LEARNING_RATE = 1e-2
"""Peak learning rate of nnU-Net's trainer."""

READ_ORDER = {"stored": (2, 1, 0), "ras": (2, 1, 0), "raster": (0, 1)}
"""Axis of the image as segmed reads it that each axis of nnU-Net's array is."""

MODALITIES = {"ct": "CT", "mr": "MR", "mri": "MR", "t1": "MR", "t2": "MR", "flair": "MR",
              "pet": "PT"}  # fmt: skip
"""DICOM modality of channel names that say it; others may be any."""


def plan_of(folder: NnUNetFolder) -> Plan:
    """The plan that a package of this model needs.

    Raises:
        PackageError: Its labels or axes have no form here.
    """
    found = folder.configuration
    is_flat = found.spatial_dims == 2 and found.reader != "raster"
    mirror_axes = folder.checkpoints[0].mirror_axes
    axes = stored_axes(found)
    preprocessing = Preprocessing(
        orientation="".join("RAS"[axis] for axis in axes) if found.reader == "ras" else "",
        spacing_mm=(1.0, *found.spacing_mm) if is_flat else found.spacing_mm,
        crop_nonzero=True,
        intensity=tuple(_intensity(channel) for channel in found.channels),
        scheme="nnunet",
        axes=() if found.reader == "ras" else axes,
        kept_axis=0 if is_flat else None,
    )
    return Plan(
        name=found.dataset,
        spatial_dims=2 if found.spatial_dims == 2 else 3,
        channels=tuple(_channel(channel) for channel in found.channels),
        labels=_labels(found.labels),
        preprocessing=preprocessing,
        patch_size=found.patch_size,
        slice_axis=0 if is_flat else None,
        networks={NAME: NetworkPlan(options=asdict(found.network), learning_rate=LEARNING_RATE)},
        recipe=Recipe(
            augmentation=Augmentation(
                flip_axes=mirror_axes, rotation_deg=(30.0,) * (1 if found.spatial_dims == 2 else 3)
            )
        ),
        inference=Inference(
            overlap=0.5,
            blend="nnunet",
            average="logits",
            mirror_axes=mirror_axes,
            tta=bool(mirror_axes),
            keep_largest_together=folder.postprocessing,
        ),
        reasons={"preprocessing.scheme": f"trained by nnU-Net ({found.plans_name}, {found.name})"},
    )


def stored_axes(found: Configuration) -> tuple[int, ...]:
    """Axis of the image as segmed reads it that each axis of nnU-Net's prepared array is."""
    return tuple(READ_ORDER[found.reader][axis] for axis in _transpose(found))


def _transpose(found: Configuration) -> tuple[int, ...]:
    """nnU-Net's axes of a raster are slice, row and column; the slice is none of ours."""
    if found.reader != "raster":
        return found.transpose
    if found.transpose[0] != 0:
        raise PackageError("a raster whose slice axis is transposed has no form here")
    return tuple(axis - 1 for axis in found.transpose[1:])


def _channel(rule: ChannelScaling) -> Channel:
    return Channel(name=rule.name, modality=MODALITIES.get(rule.name.strip().lower(), "OT"))


def _intensity(rule: ChannelScaling) -> Intensity:
    """The scaling of one channel; statistics of the training foreground count for CT alone."""
    if rule.scheme == "CTNormalization":
        known = rule.properties
        return Intensity(
            scheme="ct",
            low=known["percentile_00_5"],
            high=known["percentile_99_5"],
            mean=known["mean"],
            std=max(known["std"], 1e-8),
        )
    if rule.scheme == "ZScoreNormalization":
        return Intensity(scheme="zscore", nonzero=rule.masked)
    if rule.scheme == "RescaleTo01Normalization":
        return Intensity(scheme="unit")
    if rule.scheme == "RGBTo01Normalization":
        return Intensity(scheme="unit", low=0.0, high=255.0)
    return Intensity(scheme="none")


def _labels(found: LabelSet) -> tuple[LabelClass, ...]:
    if found.has_regions:
        return _regions(found)
    values = {name: value[0] for name, value in found.values.items()}
    if sorted(values.values()) != list(range(1, len(values) + 1)):
        raise PackageError(
            f"labels of an nnU-Net model are 1, 2, ... without gaps, got {sorted(values.values())}"
        )
    ordered = sorted(values.items(), key=lambda item: item[1])
    return tuple(LabelClass(name=name, value=value) for name, value in ordered)


def _regions(found: LabelSet) -> tuple[LabelClass, ...]:
    """Regions in the order in which they are painted, each with the value that it is painted in.

    Raises:
        PackageError: One would be painted in a value that none of its voxels has, or be lost below
            another.
    """
    pairs = zip(found.values.items(), found.paint_order, strict=True)
    regions = []
    for (name, values), painted in pairs:
        if painted not in values:
            raise PackageError(
                f"region {name!r} of the labels {list(values)} is painted as {painted} "
                "(regions_class_order in dataset.json), which is none of them"
            )
        region = values if len(values) > 1 else ()
        regions.append(LabelClass(name=name, value=painted, region=region))
    if fault := LabelEncoding(tuple(regions)).fault():
        raise PackageError(f"dataset.json: {fault}")
    return tuple(regions)
