"""Preprocessing of an image set, with the reason for each choice."""

from __future__ import annotations

from segmed.errors import UsageError
from segmed.manifest.schema import Manifest
from segmed.plan.fingerprint import Fingerprint
from segmed.plan.recipe import COARSE_AXIS_RATIO
from segmed.plan.schema import Intensity, Preprocessing

CROP_SHARE = 0.25
"""Volumes of which more is exactly zero are cropped."""


def plan_preprocessing(
    manifest: Manifest,
    facts: Fingerprint,
    spacing_mm: tuple[float, ...],
    reasons: dict[str, str],
) -> Preprocessing:
    """Everything but a coarser spacing, which is chosen with the patch.

    Args:
        manifest: The image set.
        facts: Facts of its training cases.
        spacing_mm: Voxel edge along each axis, in mm.
        reasons: The plan's reasons; those of preprocessing are added.
    """
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
        "N4 is slow and helps MR only: requested by --bias-correction"
    )
    return Preprocessing(
        orientation="" if facts.is_raster else "RAS",
        spacing_mm=spacing_mm,
        anisotropic_axis=coarsest if is_anisotropic else None,
        crop_nonzero=crop,
        intensity=intensity,
    )


def with_bias_correction(
    preprocessing: Preprocessing, manifest: Manifest, reasons: dict[str, str]
) -> Preprocessing:
    """Preprocessing that clears the MR channels of their bias field first.

    Args:
        preprocessing: Without it.
        manifest: The image set.
        reasons: The plan's reasons; this one is added.

    Raises:
        UsageError: No channel has the modality MR.
    """
    names = [channel.name for channel in manifest.channels if channel.modality == "MR"]
    if not names:
        raise UsageError(
            "bias correction requested, but no channel of the manifest has the modality MR"
        )
    reasons["preprocessing.bias_correction"] = f"N4 as requested, on {', '.join(names)}"
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
