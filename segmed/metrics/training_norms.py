"""Reference statistics of a training set, stored with the model.

An archive run compares its studies with it: ranges of shapes give quality flags, distributions of
volumes, spacings and intensities give the drift watch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from segmed.geometry import spacing_of
from segmed.metatensor import MetaTensor
from segmed.metrics.measures import Distributions, add_features, measure
from segmed.metrics.quality import Shape, ShapeRange, check_shapes, learn_ranges, measure_shapes
from segmed.structures import LabelClass

RANGES = "shape_ranges"
"""Key of the ranges of `learn_ranges` in a package's provenance, as JSON values."""

DISTRIBUTIONS = "training_distributions"
"""Key of each feature's values over the training cases in a package's provenance."""

RESULTS = "result_distributions"
"""Key of the values of each feature over the model's own results on held-out cases.

Volumes and flags of results are compared with these: a model's results have more flags than the
references, and volumes of their own.
"""

MAX_VALUES = 500
"""Of a larger training set, so many evenly spaced order statistics of each feature are kept."""

DIGITS = 6
"""Significant digits of a value that is kept."""


def ranges_of(provenance: Mapping[str, Any]) -> tuple[ShapeRange, ...]:
    """Ranges of shapes that a package keeps in its provenance; none if it keeps none."""
    return tuple(ShapeRange.model_validate(item) for item in provenance.get(RANGES, ()))


def measure_reference(
    image: MetaTensor, label: MetaTensor, labels: Sequence[LabelClass]
) -> dict[str, Any]:
    """Measure one training case for the reference statistics.

    Args:
        image: `[C, *spatial]`, as read.
        label: `[1, *spatial]` label values, the reference, on the image's grid.
        labels: The structures.

    Returns:
        JSON values: those of `measure`, and `shapes`, one a structure.
    """
    values = np.asarray(label)[0]
    spacing = spacing_of(np.asarray(image.affine, dtype=np.float64))[: values.ndim]
    shapes = measure_shapes(values, labels=labels, spacing_mm=spacing)
    return {**measure(image, label, labels), "shapes": [asdict(shape) for shape in shapes]}


def training_norms(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Ranges and distributions of a training set.

    Args:
        cases: From `measure_reference`, one a case.

    Returns:
        JSON values under `RANGES` and `DISTRIBUTIONS`; the values of a feature are sorted, so that
        no row of them belongs to one case. Empty without any case.
    """
    if not cases:
        return {}
    shapes = [[Shape(**shape) for shape in case["shapes"]] for case in cases]
    ranges = learn_ranges(shapes)
    found: Distributions = {}
    for case, its_shapes in zip(cases, shapes, strict=True):
        odd = [flag.code for flag in check_shapes(its_shapes, ranges)]
        add_features(found, {**case, "flags": [*case["flags"], *odd]})
    return {
        RANGES: [known.model_dump(mode="json") for known in ranges],
        DISTRIBUTIONS: {name: kept_values(values) for name, values in found.items()},
    }


def kept_values(values: Sequence[float]) -> list[float]:
    """Sorted values of a feature as they are stored: at most `MAX_VALUES`, in `DIGITS` digits."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if len(ordered) > MAX_VALUES:
        places = np.linspace(0, len(ordered) - 1, MAX_VALUES)
        ordered = ordered[np.rint(places).astype(int)]
    return [float(f"{value:.{DIGITS}g}") for value in ordered]
