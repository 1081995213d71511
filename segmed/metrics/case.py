"""All scores of one case, structure by structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan, prod

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from segmed.encoding import LabelEncoding
from segmed.errors import MetricError
from segmed.geometry import ML_PER_CUBIC_MM, Grid
from segmed.metrics import overlap, surface
from segmed.metrics.lesions import Components, components_of, match_lesions
from segmed.metrics.overlap import Counts, confusion_matrix, counts_of
from segmed.metrics.padded_box import Mask, PaddedBox, Places, padded_box_for, surface_places
from segmed.metrics.pair import Box, CroppedPair, foreground_box, join_boxes, prepare_pair
from segmed.metrics.score import MEAN_LABEL, CaseScore
from segmed.structures import LabelClass

MANY_LABELS = 8
"""Above this, the boxes of all labels are found in one pass rather than one by one."""


@dataclass(frozen=True)
class Structure:
    """Structure that is scored as one: a label, or a region of several labels.

    Attributes:
        name: Name in the table.
        values: Label values that belong to it.
        is_region: Whether it is a union and stays out of the mean over labels.
    """

    name: str
    values: tuple[int, ...]
    is_region: bool


@dataclass(frozen=True)
class _Side:
    """One mask, reduced to what the scores need."""

    surface: Places
    band: Places
    components: Components


def evaluate_case(
    prediction: npt.ArrayLike | torch.Tensor,
    reference: npt.ArrayLike | torch.Tensor,
    *,
    labels: Sequence[LabelClass] | LabelEncoding,
    spacing_mm: Sequence[float],
    case_id: str,
    tolerance_mm: float = 1.0,
    regions: Mapping[str, Sequence[int | str]] | None = None,
    grids: tuple[Grid, Grid] | None = None,
) -> list[CaseScore]:
    """Score a predicted label map against a reference, for every label and region.

    Surface voxels are those with a background face neighbour, the volume border counting as
    background. Where exactly one of the two is empty, scores in 0..1 are 0, distances are the
    image diagonal (outer corner to outer corner, more than any measured distance) and the row is
    `substituted`. Where both are empty, scores are NaN and the row is counted, never averaged.

    Args:
        prediction: Integer label map, `[*spatial]`, 2D or 3D; values not in `labels` count as
            background. For a case without a prediction give zeros: it is scored as missed.
        reference: Integer label map on the same grid.
        labels: The labels to score; or a manifest's encoding, whose ignored value marks voxels of
            the reference that nobody annotated: they are background in both, and enter nothing.
        spacing_mm: Voxel edge along each axis, in mm, in array order.
        case_id: Name of the case in the table.
        tolerance_mm: Tolerance of NSD and width of the band of boundary IoU, in mm.
        regions: Unions of labels to score besides, by name; labels by value or by name.
        grids: Grids of prediction and reference; compared before anything else.
            Two MetaTensors are compared by their own affines.

    Returns:
        One score a label, then one a region, in the order given.

    Raises:
        MetricError: Not integers, shapes or spacing that do not fit, unknown or repeated names.
        GeometryError: The two are on different grids.

    Source:
        Metrics and their pitfalls: Maier-Hein et al. 2024, Nature Methods 21, "Metrics reloaded".
    """
    if not (isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise MetricError(f"the tolerance is {tolerance_mm} mm; give zero or more millimetres")
    encoding = labels if isinstance(labels, LabelEncoding) else LabelEncoding(tuple(labels))
    structures = structures_of(encoding.labels, regions)
    pair = prepare_pair(
        prediction, reference, spacing_mm, grids, ignore_value=encoding.ignore_value
    )
    values = _present(pair, {value for structure in structures for value in structure.values})
    matrix = confusion_matrix(pair.prediction, pair.reference, values)
    boxes = boxes_of(pair, values) if len(values) > MANY_LABELS else {}
    class_of = {value: number for number, value in enumerate(values, start=1)}
    scores = []
    for structure in structures:
        counts = counts_of(matrix, [class_of[v] for v in structure.values if v in class_of])
        bare = _voxel_scores(case_id, structure, counts, pair, tolerance_mm)
        box = None if bare.both_empty else structure_box(pair, structure.values, boxes)
        scores.append(bare if box is None else _add_shape_scores(bare, structure.values, pair, box))
    return scores


def structures_of(
    labels: Sequence[LabelClass], regions: Mapping[str, Sequence[int | str]] | None
) -> list[Structure]:
    """Labels and regions as one list of what is scored.

    Raises:
        MetricError: No label, a name twice, or a region of unknown labels.
    """
    value_of = {label.name: label.value for label in labels}
    found = [Structure(label.name, label.values, is_region=False) for label in labels]
    for name, members in (regions or {}).items():
        values = [one for member in members for one in _values_of(member, labels)]
        if not values or not set(values) <= set(value_of.values()):
            raise MetricError(
                f"region {name!r} is made of {list(members)}; the labels are "
                f"{', '.join(f'{n}={v}' for n, v in value_of.items())}"
            )
        found.append(Structure(name, tuple(sorted(set(values))), is_region=True))
    names = [structure.name for structure in found]
    if MEAN_LABEL in names:
        raise MetricError(f"a label is called {MEAN_LABEL!r}, the name of the mean; rename it")
    values_used = [label.value for label in labels]
    if not names or len(set(names)) < len(names) or len(set(values_used)) < len(values_used):
        raise MetricError(
            f"labels and regions need names and values of their own, got {names} with values "
            f"{values_used}; give each once"
        )
    return found


def _values_of(member: int | str, labels: Sequence[LabelClass]) -> tuple[int, ...]:
    """Label values of a part of a region; -1 if there is no such label."""
    if not isinstance(member, str):
        return (member,)
    return next((label.values for label in labels if label.name == member), (-1,))


def _present(pair: CroppedPair, values: set[int]) -> list[int]:
    """Those of some label values that occur, in order: of thousands a case may have a few."""
    sides = (np.bincount(side.reshape(-1)) for side in (pair.prediction, pair.reference))
    found = {int(value) for counts in sides for value in np.flatnonzero(counts)}
    return sorted(values & found)


def _voxel_scores(
    case_id: str, structure: Structure, counts: Counts, pair: CroppedPair, tolerance_mm: float
) -> CaseScore:
    """The row with everything that voxel counts decide; the rest by the policy for empties."""
    missed = counts.prediction == 0 < counts.reference
    invented = counts.reference == 0 < counts.prediction
    ml = prod(pair.spacing_mm) * ML_PER_CUBIC_MM
    distance, fraction = (pair.diagonal_mm, 0.0) if missed or invented else (nan, nan)
    return CaseScore(
        case=case_id,
        label=structure.name,
        is_region=structure.is_region,
        dice=overlap.dice(counts),
        iou=overlap.iou(counts),
        precision=overlap.precision(counts),
        recall=overlap.recall(counts),
        f1=overlap.f1(counts),
        volume_similarity=overlap.volume_similarity(counts),
        hd_mm=distance,
        hd95_mm=distance,
        assd_mm=distance,
        nsd=fraction,
        boundary_iou=fraction,
        lesion_f1=fraction,
        panoptic_quality=fraction,
        lesions_prediction=0,
        lesions_reference=0,
        lesions_matched=0,
        voxels_prediction=counts.prediction,
        voxels_reference=counts.reference,
        voxels_common=counts.common,
        voxels_image=pair.voxels,
        volume_prediction_ml=counts.prediction * ml,
        volume_reference_ml=counts.reference * ml,
        volume_difference_ml=(counts.prediction - counts.reference) * ml,
        tolerance_mm=tolerance_mm,
        missed=missed,
        false_positive=invented,
        both_empty=counts.prediction == counts.reference == 0,
        substituted=missed or invented,
    )


def _add_shape_scores(
    bare: CaseScore, values: tuple[int, ...], pair: CroppedPair, box: Box
) -> CaseScore:
    """The row with surfaces and components, measured in a tight box around the structure."""
    padded = padded_box_for(box, pair.spacing_mm, bare.tolerance_mm)
    prediction = padded.mask(pair.prediction[box], values)
    if bare.missed:
        reference = padded.mask(pair.reference[box], values)
        return replace(bare, lesions_reference=components_of(reference, padded).sizes.size)
    if bare.false_positive:
        return replace(bare, lesions_prediction=components_of(prediction, padded).sizes.size)
    predicted = _reduce(prediction, padded, bare.tolerance_mm)
    del prediction
    true = _reduce(padded.mask(pair.reference[box], values), padded, bare.tolerance_mm)
    distances = surface.surface_distances(predicted.surface, true.surface, padded)
    lesions = match_lesions(predicted.components, true.components)
    return replace(
        bare,
        hd_mm=surface.hausdorff_mm(distances),
        hd95_mm=surface.hausdorff_mm(distances, 95.0),
        assd_mm=surface.assd_mm(distances),
        nsd=surface.nsd(distances, bare.tolerance_mm),
        boundary_iou=surface.boundary_iou(predicted.band, true.band, padded),
        lesion_f1=lesions.f1,
        panoptic_quality=lesions.panoptic_quality,
        lesions_prediction=lesions.prediction,
        lesions_reference=lesions.reference,
        lesions_matched=lesions.matched,
    )


def _reduce(mask: Mask, padded: PaddedBox, width_mm: float) -> _Side:
    places = surface_places(mask, padded)
    return _Side(
        surface=places,
        band=surface.band_places(mask, places, padded, width_mm),
        components=components_of(mask, padded),
    )


def structure_box(
    pair: CroppedPair, values: Sequence[int], known: Mapping[int, Box] | None = None
) -> Box:
    """The tightest box around a structure in prediction and reference together.

    Args:
        pair: Both label maps; at least one has the structure.
        values: Its label values.
        known: Boxes of single values, from `boxes_of`; looked for where empty.
    """
    if known:
        return join_boxes([known[value] for value in values if value in known])
    boxes = []
    for labels in (pair.prediction, pair.reference):
        mask = np.isin(labels, values) if len(values) > 1 else labels == values[0]
        boxes += [box for box in [foreground_box(mask)] if box is not None]
    return join_boxes(boxes)


def boxes_of(pair: CroppedPair, values: Sequence[int]) -> dict[int, Box]:
    """Box of each label value over prediction and reference, in one pass over each."""
    found: dict[int, list[Box]] = {}
    for labels in (pair.prediction, pair.reference):
        for value, box in enumerate(ndimage.find_objects(labels, max(values)), start=1):
            if box is not None:
                found.setdefault(value, []).append(box)
    return {value: join_boxes(boxes) for value, boxes in found.items()}
