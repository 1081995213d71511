"""The facts of an image set that a plan is made from."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segmed.errors import ManifestError, SegmedError
from segmed.geometry import reorientation, spacing_of
from segmed.io import grid_of
from segmed.manifest.case_reader import CaseReader, over_cases
from segmed.manifest.resampled import Box, extents_of
from segmed.manifest.schema import Case, Manifest
from segmed.plan.case_facts import CaseFacts
from segmed.plan.known_facts import KnownFacts
from segmed.plan.shapes import measure_shapes

FOREGROUND_SAMPLES = 10_000
"""Foreground voxels a case contributes to the intensity statistics, at most."""

ALL_SAMPLES = 20_000_000
"""Foreground voxels of all cases together, 80 MB a channel; of over 2,000 cases each has less."""

EXTENT_PERCENTILE = 90.0
"""A structure's extent is that of this percentile of the cases that have it."""


@dataclass(frozen=True)
class Fingerprint:
    """Summary of the training cases: geometry, intensities and label extents.

    Attributes:
        num_cases: Cases looked at.
        is_raster: Whether the images are two-dimensional.
        median_spacing_mm: Median voxel edge along each axis.
        median_shape: Median size along each axis, in voxels as stored.
        median_filled_shape: The same after cropping to voxels that are not zero.
        min_shape: Smallest size along each axis.
        max_shape: Largest size along each axis.
        orientations: How many cases are stored in which orientation.
        class_share: Share of all voxels under each label, in the manifest's order.
        intensity: Per channel: mean, std, and percentiles 0.5 and 99.5 under the labels.
        background_zero: Median share of voxels that are exactly zero.
        structure_extent_mm: Bounding box of each label's largest connected part, in the manifest's
            order: the 90th percentile of the cases that have it; empty for a label in no case.
        structure_thickness_mm: Mean run length of each label along each axis, likewise.
        gap_thickness_mm: The same of background between labels, where labels cover most of the
            images; else empty.
        case_share: Share of the cases that have each label, in the manifest's order; empty in plans
            written before it was measured.
        tenth_spacing_mm: 10th percentile of the voxel edges along each axis; empty in plans written
            before it was measured.
        labels_extent_mm: Bounding box of all labels together, the 90th percentile of the cases;
            empty in plans written before it was measured.
    """

    num_cases: int
    is_raster: bool
    median_spacing_mm: tuple[float, ...]
    median_shape: tuple[float, ...]
    median_filled_shape: tuple[float, ...]
    min_shape: tuple[int, ...]
    max_shape: tuple[int, ...]
    orientations: dict[str, int]
    class_share: tuple[float, ...]
    intensity: tuple[dict[str, float], ...]
    background_zero: float
    structure_extent_mm: tuple[tuple[float, ...], ...] = ()
    structure_thickness_mm: tuple[tuple[float, ...], ...] = ()
    gap_thickness_mm: tuple[float, ...] = ()
    case_share: tuple[float, ...] = ()
    tenth_spacing_mm: tuple[float, ...] = ()
    labels_extent_mm: tuple[float, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """Plain JSON values, as stored in a plan."""
        record: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return record


def survey(
    manifest: Manifest,
    *,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    known: KnownFacts | None = None,
) -> list[CaseFacts]:
    """Read every training case once; those whose facts are known are not read again.

    Args:
        manifest: The image set; its test cases are not read.
        workers: Threads that read.
        progress: Called with cases done and cases in all.
        known: Facts of earlier surveys; new ones are added, and kept by its `save`.

    Returns:
        The facts of each training case, in the manifest's order.

    Raises:
        ManifestError: There is no training case, a case cannot be read, or 2D and 3D are mixed.
    """
    if not manifest.training:
        raise ManifestError(f"manifest {manifest.name!r} has no training cases to plan from")
    facts: list[CaseFacts] = []
    samples = max(1, min(FOREGROUND_SAMPLES, ALL_SAMPLES // len(manifest.training)))

    def facts_of(reader: CaseReader, case: Case) -> CaseFacts:
        if known is None:
            return _look_at(reader, case, samples)
        return known.facts(manifest, case, samples, lambda: _look_at(reader, case, samples))

    def is_read(case: Case) -> bool:
        return known is None or not known.has(manifest, case, samples)

    for case_facts in over_cases(
        facts_of, manifest, manifest.training, workers=max(1, workers), is_read=is_read
    ):
        facts.append(case_facts)
        if progress is not None:
            progress(len(facts), len(manifest.training))
    dimensions = {len(fact.shape) for fact in facts}
    if len(dimensions) > 1:
        raise ManifestError(f"manifest {manifest.name!r} mixes 2D images and volumes: split it")
    return facts


def _look_at(reader: CaseReader, case: Case, samples: int) -> CaseFacts:
    manifest = reader.manifest
    if case.label is None:
        raise ManifestError(f"training case {case.id} has no label: name one, or move it to 'test'")
    try:
        image = reader.image(case)
        label = reader.label(case.label, like=image)
    except SegmedError as error:
        raise ManifestError(f"case {case.id}: {error}") from error
    grid = grid_of(image)
    voxels = np.asarray(image)
    values = np.asarray(label)[0]
    if manifest.ignore_value is not None:  # nothing is known of these voxels
        values = np.where(values == manifest.ignore_value, 0, values)
    counts = np.bincount(values.ravel().astype(np.int64), minlength=1)
    inside = voxels[:, values > 0]
    step = max(1, inside.shape[1] // samples)
    order = _axis_order(grid.affine_ras, len(grid.shape))
    spacing_mm = spacing_of(grid.affine_ras)
    shapes = measure_shapes(
        values, [item.value for item in manifest.labels], spacing_mm[: values.ndim]
    )
    filled = (voxels != 0).any(axis=0)
    box = _box_of(filled)
    filled_shape = tuple(stop - start for start, stop in box)
    return CaseFacts(
        shape=tuple(grid.shape[axis] for axis in order),
        filled_shape=tuple(filled_shape[axis] for axis in order),
        spacing_mm=tuple(spacing_mm[axis] for axis in order),
        orientation=grid.orientation,
        class_voxels=tuple(
            int(counts[item.value]) if item.value < len(counts) else 0 for item in manifest.labels
        ),
        foreground=inside[:, ::step].astype(np.float32),
        background_zero=1.0 - float(filled.mean()),
        grid=grid,
        box=box,
        extents=extents_of(values, {item.value for item in manifest.labels}),
        shapes=shapes.along(order),
    )


def _box_of(filled: npt.NDArray[np.bool_]) -> Box:
    """Bounding box of a mask; of an empty one, the whole."""
    box = []
    for axis, size in enumerate(filled.shape):
        others = tuple(other for other in range(filled.ndim) if other != axis)
        used = np.flatnonzero(filled.any(axis=others))
        box.append((int(used[0]), int(used[-1]) + 1) if used.size else (0, size))
    return tuple(box)


def _axis_order(affine_ras: npt.NDArray[np.float64], axes: int) -> Sequence[int]:
    """Stored axis that becomes each axis of the reoriented volume; rasters stay as they are."""
    if axes == 2:
        return (0, 1)
    return [int(axis) for axis in np.argsort(reorientation(affine_ras, "RAS")[:, 0])]


def gather(facts: Sequence[CaseFacts]) -> Fingerprint:
    """The fingerprint of the cases that were surveyed."""
    shapes = np.array([fact.shape for fact in facts])
    filled = np.array([fact.filled_shape for fact in facts])
    spacings = np.array([fact.spacing_mm for fact in facts])
    voxels = shapes.prod(axis=1).sum()
    orientations: dict[str, int] = {}
    for fact in facts:
        orientations[fact.orientation] = orientations.get(fact.orientation, 0) + 1
    foreground = np.concatenate([fact.foreground for fact in facts], axis=1)
    return Fingerprint(
        num_cases=len(facts),
        is_raster=shapes.shape[1] == 2,
        median_spacing_mm=tuple(round(float(x), 5) for x in np.median(spacings, axis=0)),
        tenth_spacing_mm=tuple(round(float(x), 5) for x in np.percentile(spacings, 10, axis=0)),
        median_shape=tuple(float(x) for x in np.median(shapes, axis=0)),
        median_filled_shape=tuple(float(x) for x in np.median(filled, axis=0)),
        min_shape=tuple(int(x) for x in shapes.min(axis=0)),
        max_shape=tuple(int(x) for x in shapes.max(axis=0)),
        orientations=orientations,
        class_share=tuple(
            float(f"{x:.4g}")
            for x in np.array([f.class_voxels for f in facts]).sum(axis=0) / voxels
        ),
        intensity=tuple(_intensity(channel) for channel in foreground),
        background_zero=float(np.median([fact.background_zero for fact in facts])),
        structure_extent_mm=_each(
            np.array([fact.shapes.extent_mm for fact in facts]),
            lambda rows: np.percentile(rows, EXTENT_PERCENTILE, axis=0),
        ),
        structure_thickness_mm=_each(
            np.array([fact.shapes.thickness_mm for fact in facts]), lambda rows: rows.mean(axis=0)
        ),
        gap_thickness_mm=_each(
            np.array([fact.shapes.gap_mm for fact in facts])[:, None],
            lambda rows: rows.mean(axis=0),
        )[0],
        labels_extent_mm=_each(
            np.array([fact.shapes.together_mm for fact in facts])[:, None],
            lambda rows: np.percentile(rows, EXTENT_PERCENTILE, axis=0),
        )[0],
        case_share=tuple(
            float(f"{share:.4g}")
            for share in (np.array([fact.class_voxels for fact in facts]) > 0).mean(axis=0)
        ),
    )


def _each(
    sizes: npt.NDArray[np.float64],
    summary: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
) -> tuple[tuple[float, ...], ...]:
    """A summary over the cases `[cases, labels, axes]` of each label; empty where it is in none."""
    found = []
    for rows in sizes.transpose(1, 0, 2):
        present = rows[np.isfinite(rows).all(axis=1)]
        summed = summary(present) if len(present) else np.empty(0)
        found.append(tuple(float(f"{value:.4g}") for value in summed))
    return tuple(found)


def _intensity(values: npt.NDArray[np.float32]) -> dict[str, float]:
    """Mean, standard deviation and outer percentiles of one channel under the labels."""
    if values.size == 0:
        raise ManifestError("no training case has any labelled voxel: nothing to learn from")
    low, high = np.percentile(values, [0.5, 99.5])
    statistics = {"mean": values.mean(), "std": values.std(), "p00_5": low, "p99_5": high}
    return {name: float(f"{value:.6g}") for name, value in statistics.items()}
