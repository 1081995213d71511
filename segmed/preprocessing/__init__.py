"""Preprocessing: from images as stored to the network's input, and the exact inverse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segmed.lazy import lazy_exports

if TYPE_CHECKING:
    from segmed.preprocessing.cache import (
        PreparedCache,
        PreparedCase,
        cached_case,
        cached_measures,
        prepared_case,
    )
    from segmed.preprocessing.entry_key import cache_key
    from segmed.preprocessing.filling import prepare_cases
    from segmed.preprocessing.prepared_cases import PreparedCases
    from segmed.preprocessing.prepared_dataset import PreparedDataset
    from segmed.transforms.chain import class_values, prepare, prepare_label
    from segmed.transforms.grid_transform import GridTransform, Prepared
    from segmed.transforms.resampling import resample, resampled_shape
else:  # the cache's compression, which prediction does without, and classes of MONAI
    __getattr__ = lazy_exports(
        __name__,
        {
            "segmed.preprocessing.cache": "PreparedCache PreparedCase cached_case "
            "cached_measures prepared_case",
            "segmed.preprocessing.entry_key": "cache_key",
            "segmed.preprocessing.filling": "prepare_cases",
            "segmed.preprocessing.prepared_cases": "PreparedCases",
            "segmed.preprocessing.prepared_dataset": "PreparedDataset",
            "segmed.transforms.chain": "class_values prepare prepare_label",
            "segmed.transforms.grid_transform": "GridTransform Prepared",
            "segmed.transforms.resampling": "resample resampled_shape",
        },
    )

__all__ = [
    "GridTransform",
    "Prepared",
    "PreparedCache",
    "PreparedCase",
    "PreparedCases",
    "PreparedDataset",
    "cache_key",
    "cached_case",
    "cached_measures",
    "class_values",
    "prepare",
    "prepare_cases",
    "prepare_label",
    "prepared_case",
    "resample",
    "resampled_shape",
]
