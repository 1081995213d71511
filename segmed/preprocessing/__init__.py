"""Preprocessing: from images as stored to what the network sees, and exactly back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segmed.late import exported_late
from segmed.preprocessing.cache import cache_key, cached_case, cached_measures, prepared_case
from segmed.preprocessing.placement import Placement, Prepared
from segmed.preprocessing.prepare import class_values, prepare, prepare_label
from segmed.preprocessing.resampling import resample, resampled_shape
from segmed.preprocessing.restore import restore_probs, restore_slab

if TYPE_CHECKING:
    from segmed.preprocessing.chain import preparation_chain
else:  # a MONAI `Compose`, and with it all of MONAI
    __getattr__ = exported_late(__name__, {"segmed.preprocessing.chain": "preparation_chain"})

__all__ = [
    "Placement",
    "Prepared",
    "cache_key",
    "cached_case",
    "cached_measures",
    "class_values",
    "preparation_chain",
    "prepare",
    "prepare_label",
    "prepared_case",
    "resample",
    "resampled_shape",
    "restore_probs",
    "restore_slab",
]
