"""MONAI transforms from images as stored to the network's input, and the exact inverse.

`preparation(plan)` is the chain of a plan. Each step is there as an array transform and, with a `d`
at the end of its name, as a dictionary transform.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segmed.lazy import lazy_exports

if TYPE_CHECKING:
    from segmed.transforms.bias import CorrectBias
    from segmed.transforms.chain import PreparationChain, class_values, preparation, prepared_of
    from segmed.transforms.crop import CropBox, CropNonzero
    from segmed.transforms.dictionary import (
        ClassIndicesd,
        ClipChannelsd,
        CorrectBiasd,
        CropBoxd,
        CropNonzerod,
        KnownLabelsd,
        Reorientd,
        ScaleChannelsd,
        SplineSpacingd,
    )
    from segmed.transforms.grid_transform import GridTransform, Prepared
    from segmed.transforms.intensity import ClipChannels, ScaleChannels
    from segmed.transforms.labels import ClassIndices, KnownLabels
    from segmed.transforms.rand_augment import RandAugment, RandAugmentd
    from segmed.transforms.reading import ReadCase
    from segmed.transforms.reorient import Reorient
    from segmed.transforms.resampling import resample, resampled_shape
    from segmed.transforms.spline_spacing import SplineSpacing
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "segmed.transforms.bias": "CorrectBias",
            "segmed.transforms.chain": "PreparationChain class_values preparation prepared_of",
            "segmed.transforms.crop": "CropBox CropNonzero",
            "segmed.transforms.dictionary": "ClassIndicesd ClipChannelsd CorrectBiasd CropBoxd "
            "CropNonzerod KnownLabelsd Reorientd ScaleChannelsd SplineSpacingd",
            "segmed.transforms.grid_transform": "GridTransform Prepared",
            "segmed.transforms.intensity": "ClipChannels ScaleChannels",
            "segmed.transforms.labels": "ClassIndices KnownLabels",
            "segmed.transforms.rand_augment": "RandAugment RandAugmentd",
            "segmed.transforms.reading": "ReadCase",
            "segmed.transforms.reorient": "Reorient",
            "segmed.transforms.resampling": "resample resampled_shape",
            "segmed.transforms.spline_spacing": "SplineSpacing",
        },
    )

__all__ = [
    "ClassIndices",
    "ClassIndicesd",
    "ClipChannels",
    "ClipChannelsd",
    "CorrectBias",
    "CorrectBiasd",
    "CropBox",
    "CropBoxd",
    "CropNonzero",
    "CropNonzerod",
    "GridTransform",
    "KnownLabels",
    "KnownLabelsd",
    "PreparationChain",
    "Prepared",
    "RandAugment",
    "RandAugmentd",
    "ReadCase",
    "Reorient",
    "Reorientd",
    "ScaleChannels",
    "ScaleChannelsd",
    "SplineSpacing",
    "SplineSpacingd",
    "class_values",
    "preparation",
    "prepared_of",
    "resample",
    "resampled_shape",
]
