"""What is measured on every segmented study, for tables, quality flags and the drift watch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.data import MetaTensor

from segmed.geometry import spacing_of
from segmed.manifest.schema import LabelClass

PERCENTILES = (1, 50, 99)
MAX_SAMPLES = 100_000
"""Voxels that intensity statistics are taken from, evenly spread over the image."""


def measure(image: MetaTensor, label: MetaTensor, labels: Sequence[LabelClass]) -> dict[str, Any]:
    """Volumes of the structures, spacing, and intensities of the image.

    Args:
        image: `[C, *spatial]`.
        label: `[1, *spatial]` label values.
        labels: The structures.

    Returns:
        JSON values: `volumes_ml` by structure, `spacing_mm`, `shape`, and for each channel
        `intensity` with `mean`, `std` and percentiles.
    """
    spatial = tuple(int(n) for n in label.shape[1:])
    spacing = spacing_of(np.asarray(image.affine, dtype=np.float64))[: len(spatial)]
    voxel_ml = float(np.prod(spacing)) / 1000.0
    values = np.asarray(label).ravel()
    counts = np.bincount(values, minlength=max(item.value for item in labels) + 1)
    return {
        "volumes_ml": {item.name: float(counts[item.value]) * voxel_ml for item in labels},
        "spacing_mm": [float(edge) for edge in spacing],
        "shape": list(spatial),
        "intensity": [_intensity(np.asarray(channel)) for channel in image],
    }


def _intensity(channel: np.ndarray) -> dict[str, float]:
    values = channel.ravel()[:: max(1, channel.size // MAX_SAMPLES)].astype(np.float64)
    low, median, high = np.percentile(values, PERCENTILES)
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "p01": float(low),
        "median": float(median),
        "p99": float(high),
    }
