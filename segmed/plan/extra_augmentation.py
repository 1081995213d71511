"""Random transforms of MONAI that a plan may add by name, with plain arguments."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from segmed.structures import Frozen

_AFFINE = "prob rotate_range shear_range translate_range scale_range padding_mode"

INTENSITY = {
    "RandGaussianNoise": "prob mean std sample_std",
    "RandRicianNoise": "prob mean std channel_wise relative sample_std",
    "RandGibbsNoise": "prob alpha",
    "RandKSpaceSpikeNoise": "prob intensity_range channel_wise",
    "RandBiasField": "prob degree coeff_range",
    "RandScaleIntensity": "prob factors channel_wise",
    "RandScaleIntensityFixedMean": "prob factors fixed_mean preserve_range channel_wise",
    "RandShiftIntensity": "prob offsets safe channel_wise",
    "RandStdShiftIntensity": "prob factors nonzero channel_wise",
    "RandAdjustContrast": "prob gamma invert_image retain_stats",
    "RandGaussianSmooth": "prob sigma_x sigma_y sigma_z approx",
    "RandGaussianSharpen": "prob sigma1_x sigma1_y sigma1_z sigma2_x sigma2_y sigma2_z alpha "
    "approx",
    "RandHistogramShift": "prob num_control_points",
    "RandCoarseDropout": "prob holes spatial_size dropout_holes fill_value max_holes "
    "max_spatial_size",
    "RandCoarseShuffle": "prob holes spatial_size max_holes max_spatial_size",
    "RandSimulateLowResolution": "prob zoom_range",
}
"""Transforms of the image alone, with the arguments that a plan may give."""

SPATIAL = {
    "RandFlip": "prob spatial_axis",
    "RandRotate90": "prob max_k spatial_axes",
    "RandRotate": "prob range_x range_y range_z padding_mode",
    "RandZoom": "prob min_zoom max_zoom padding_mode",
    "RandAffine": _AFFINE,
    "Rand2DElastic": f"spacing magnitude_range {_AFFINE}",
    "Rand3DElastic": f"sigma_range magnitude_range {_AFFINE}",
    "RandGridDistortion": "prob num_cells distort_limit padding_mode",
}
"""Transforms of image and label together."""


class ExtraTransform(Frozen):
    """One random transform of MONAI, after the plan's own changes of a training batch.

    Attributes:
        name: Name of MONAI's array transform, one of `INTENSITY` or `SPATIAL`.
        arguments: Its arguments: numbers, truth values, texts, and lists of them.
    """

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _require_known(cls, name: str) -> str:
        if name not in INTENSITY and name not in SPATIAL:
            known = ", ".join(sorted((*INTENSITY, *SPATIAL)))
            raise ValueError(f"unknown transform; known are {known}")
        return name

    @model_validator(mode="after")
    def _require_plain_arguments(self) -> ExtraTransform:
        known = (INTENSITY | SPATIAL)[self.name].split()
        for argument, value in self.arguments.items():
            if argument not in known:
                raise ValueError(
                    f"{self.name} has no argument {argument!r} here; known are {', '.join(known)}"
                )
            if not _is_plain(value):
                raise ValueError(
                    f"{self.name}: {argument} must be a number, a truth value, a text or a list of "
                    f"them, got {value!r}"
                )
        return self

    @property
    def mirrored_axes(self) -> tuple[int, ...] | None:
        """Spatial axes that it mirrors; None if all of them."""
        if self.name != "RandFlip":
            return ()
        axis = self.arguments.get("spatial_axis")
        if axis is None:
            return None
        return (int(axis),) if isinstance(axis, int) else tuple(int(one) for one in axis)


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(one) for one in value)
    return isinstance(value, bool | int | float | str)
