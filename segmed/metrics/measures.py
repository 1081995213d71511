"""Measures taken of every training case and of every archived study, for drift detection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmed.geometry import spacing_of
from segmed.metatensor import MetaTensor
from segmed.metrics.pair import join_boxes
from segmed.metrics.quality import ShapeRange, check_quality
from segmed.structures import LabelClass

Distributions = dict[str, list[float]]
"""Values of each feature, one a case."""

FLAGGED = "flagged"
"""Feature that is 1 where a case has any flag, else 0."""

VOLUME = "volume_ml:"
"""Begin of the feature of a structure's volume, before its name."""

PREDICTED_QUALITY = "predicted_quality"
"""Feature that is the score of a case's predicted quality, where it has one."""

VOLUME = "volume_ml:"
"""Start of the features that are volumes; the name of the structure follows."""

OVERPAINTED_SHARE = 0.05
"""A structure of a joined label map that lost more than this share is flagged `overpainted`."""

PERCENTILES = (1, 50, 99)
MAX_SAMPLES = 100_000
"""Voxels that intensity statistics are taken from, evenly spread over the image."""

FRAGMENTED_SHARE = 0.9
"""A structure whose largest piece contains less than this share of it is flagged `fragments`."""


def measure(
    image: MetaTensor,
    label: MetaTensor,
    labels: Sequence[LabelClass],
    *,
    ranges: Sequence[ShapeRange] = (),
) -> dict[str, Any]:
    """Volumes of the structures, quality flags, spacing, and intensities of the image.

    Args:
        image: `[C, *spatial]`.
        label: `[1, *spatial]` label values.
        labels: The structures.
        ranges: What they looked like in training; adds the flags of `segmed.metrics.quality`.

    Returns:
        JSON values: `volumes_ml` by structure, `flags`, `spacing_mm`, `shape`, and for each channel
        `intensity` with `mean`, `std` and percentiles.
    """
    return {
        **measure_label(label, labels, ranges=ranges),
        "intensity": [_intensity(np.asarray(channel)) for channel in image],
    }


def measure_label(
    label: MetaTensor, labels: Sequence[LabelClass], *, ranges: Sequence[ShapeRange] = ()
) -> dict[str, Any]:
    """`measure` without the intensities, for which no image is needed.

    Args:
        label: `[1, *spatial]` label values, with the affine of its image.
        labels: The structures.
        ranges: As for `measure`.
    """
    values = np.asarray(label)[0]
    spacing = spacing_of(np.asarray(label.affine, dtype=np.float64))[: values.ndim]
    voxel_ml = float(np.prod(spacing)) / 1000.0
    flags = list(flags_of(values, labels))
    if ranges:
        odd = check_quality(values, labels=labels, spacing_mm=spacing, ranges=ranges)
        flags += [f"{flag.code}:{flag.label}" for flag in odd]
    counts = np.bincount(values.ravel(), minlength=max(item.value for item in labels) + 1)
    return {
        "volumes_ml": {
            item.name: float(counts[list(item.values)].sum()) * voxel_ml for item in labels
        },
        "flags": flags,
        "spacing_mm": [float(edge) for edge in spacing],
        "shape": list(values.shape),
    }


def add_features(found: Distributions, measures: Mapping[str, Any]) -> None:
    """Add one case's measures to the distributions.

    Features are `volume_ml:NAME`, `spacing_mm:N` (in order of size), `intensity:CHANNEL:median`,
    `intensity:CHANNEL:range` (1st to 99th percentile), `predicted_quality` and
    `flagged`.
    """
    for name, value in _features(measures):
        found.setdefault(name, []).append(value)


def _features(measures: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, volume in measures["volumes_ml"].items():
        yield f"{VOLUME}{name}", float(volume)
    for axis, edge in enumerate(sorted(measures["spacing_mm"])):
        yield f"spacing_mm:{axis}", float(edge)
    for channel, values in enumerate(measures["intensity"]):
        yield f"intensity:{channel}:median", float(values["median"])
        yield f"intensity:{channel}:range", float(values["p99"] - values["p01"])
    if "quality" in measures:
        yield PREDICTED_QUALITY, float(measures["quality"]["score"])
    yield FLAGGED, float(bool(measures["flags"]))


def overpainted_flags(shares: Mapping[str, float]) -> list[str]:
    """Flags of structures that models of higher priority painted over.

    Args:
        shares: Share of each that was painted over.
    """
    return [f"overpainted:{name}" for name, share in shares.items() if share > OVERPAINTED_SHARE]


def flags_of(values: npt.NDArray[Any], labels: Sequence[LabelClass]) -> Iterator[str]:
    """Yield the reasons to review a segmentation; no reference is needed.

    Args:
        values: Label values, `[*spatial]`.
        labels: The structures.

    Yields:
        `empty:NAME` (nothing found), `border:NAME` (it reaches the edge of the image, so it may be
        cut off), `fragments:NAME` (no piece has nine tenths of it; pieces are joined by faces).
    """
    places = ndimage.find_objects(values, max_label=max(item.value for item in labels))
    for item in labels:
        parts = [part for value in item.values if (part := places[value - 1]) is not None]
        if not parts:
            yield f"empty:{item.name}"
            continue
        place = join_boxes(parts)
        edges = zip(place, values.shape, strict=True)
        if any(part.start == 0 or part.stop == size for part, size in edges):
            yield f"border:{item.name}"
        pieces, number = ndimage.label(item.mask(values[place]))
        sizes = np.bincount(pieces.ravel(), minlength=number + 1)[1:]
        if sizes.max() < FRAGMENTED_SHARE * sizes.sum():
            yield f"fragments:{item.name}"


def _intensity(channel: npt.NDArray[Any]) -> dict[str, float]:
    values = channel.ravel()[:: max(1, channel.size // MAX_SAMPLES)].astype(np.float64)
    low, median, high = np.percentile(values, PERCENTILES)
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "p01": float(low),
        "median": float(median),
        "p99": float(high),
    }
