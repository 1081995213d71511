"""Scores of one structure in one case, and the names of the metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One column of scores.

    Attributes:
        name: Column name; ends in the unit where there is one.
        title: Name for people.
        higher_is_better: Direction of merit.
        is_fraction: Lies in 0..1, so that differences are spoken of in points (hundredths).
    """

    name: str
    title: str
    higher_is_better: bool
    is_fraction: bool


METRICS: tuple[Metric, ...] = (
    Metric("dice", "Dice", True, True),
    Metric("iou", "IoU", True, True),
    Metric("precision", "precision", True, True),
    Metric("recall", "recall", True, True),
    Metric("f1", "F1", True, True),
    Metric("volume_similarity", "volume similarity", True, True),
    Metric("hd_mm", "Hausdorff", False, False),
    Metric("hd95_mm", "HD95", False, False),
    Metric("assd_mm", "ASSD", False, False),
    Metric("nsd", "NSD", True, True),
    Metric("boundary_iou", "boundary IoU", True, True),
    Metric("lesion_f1", "lesion F1", True, True),
    Metric("panoptic_quality", "panoptic quality", True, True),
)
"""Every metric that has a better and a worse end, in the order of the tables."""

MEAN_LABEL = "mean"
"""Name of the rows over all labels; no label may be called so."""

FLAGS: tuple[str, ...] = ("missed", "false_positive", "both_empty", "substituted")
"""Columns that say why a row's scores are what they are."""


@dataclass(frozen=True)
class CaseScore:
    """Scores of one structure in one case.

    Scores are NaN where prediction and reference are both empty: such a row is counted, never
    averaged. Where exactly one is empty, scores in 0..1 are 0, distances are the image diagonal,
    and the row is `substituted`.

    Attributes:
        case: Name of the case.
        label: Name of the label or region.
        is_region: A union of labels, left out of the mean over labels.
        dice: 2 TP / (2 TP + FP + FN), in voxels.
        iou: TP / (TP + FP + FN), in voxels.
        precision: TP / (TP + FP), in voxels.
        recall: TP / (TP + FN), in voxels.
        f1: Harmonic mean of precision and recall; voxel-wise this is the Dice.
        volume_similarity: 1 - |predicted - reference| / (predicted + reference).
        hd_mm: Hausdorff distance between the surfaces, in mm.
        hd95_mm: The larger of the two directed 95th percentiles, in mm.
        assd_mm: Mean of all distances of both directions, in mm.
        nsd: Fraction of both surfaces within `tolerance_mm` of the other.
        boundary_iou: IoU of the bands inside the two masks, up to `tolerance_mm` from the surface.
        lesion_f1: Detection F1 of connected components matched one to one at IoU >= 0.1.
        panoptic_quality: Sum of IoU over components matched at IoU > 0.5, by Kirillov's formula.
        lesions_prediction: Connected components in the prediction.
        lesions_reference: Connected components in the reference.
        lesions_matched: Components matched for `lesion_f1`.
        voxels_prediction: Voxels in the prediction.
        voxels_reference: Voxels in the reference.
        voxels_common: Voxels in both.
        voxels_image: Voxels of the whole image.
        volume_prediction_ml: Volume of the prediction, in ml (2D: as if 1 mm thick).
        volume_reference_ml: Volume of the reference, in ml.
        volume_difference_ml: Predicted minus reference volume, in ml.
        tolerance_mm: Tolerance of `nsd` and `boundary_iou`, in mm.
        missed: The reference has it, the prediction does not.
        false_positive: The prediction has it, the reference does not.
        both_empty: Neither has it.
        substituted: Scores are set by the policy for empties and were not measured.
    """

    case: str
    label: str
    is_region: bool
    dice: float
    iou: float
    precision: float
    recall: float
    f1: float
    volume_similarity: float
    hd_mm: float
    hd95_mm: float
    assd_mm: float
    nsd: float
    boundary_iou: float
    lesion_f1: float
    panoptic_quality: float
    lesions_prediction: int
    lesions_reference: int
    lesions_matched: int
    voxels_prediction: int
    voxels_reference: int
    voxels_common: int
    voxels_image: int
    volume_prediction_ml: float
    volume_reference_ml: float
    volume_difference_ml: float
    tolerance_mm: float
    missed: bool
    false_positive: bool
    both_empty: bool
    substituted: bool
