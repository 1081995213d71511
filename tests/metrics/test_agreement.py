"""Agreement with the peers wherever a score is defined the same way.

MONAI and SimpleITK always; surface-distance and MedPy where the `peers` extra is installed.
Where definitions differ (docs/metrics.md lists them) no equality is asked.
"""

from __future__ import annotations

import importlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from monai import metrics as monai_metrics
from monai.metrics.panoptic_quality import compute_panoptic_quality
from scipy import ndimage

from segmed.metrics import evaluate_case
from segmed.structures import LabelClass
from tests.metrics import brute_force

LABELS = [LabelClass(name=name, value=value) for value, name in enumerate("abc", start=1)]
NUM_CASES = 50
TOLERANCE_MM = 1.5
SINGLE = 1e-5
"""MONAI returns distances, and interpolates percentiles, in single precision."""


def peer(name):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed; `pip install segmed[peers]` brings it")
    return importlib.import_module(name)


def random_case(seed):
    """Blobs of three labels that touch each other and the border; anisotropic voxels."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(9, 22, size=3))
    fields = [ndimage.gaussian_filter(rng.standard_normal(shape), 1.5) for _ in range(4)]
    reference = np.argmax(fields, axis=0).astype(np.uint8)
    moved = [field + 0.6 * rng.standard_normal(shape) * field.std() for field in fields]
    prediction = np.argmax(moved, axis=0).astype(np.uint8)
    return prediction, reference, tuple(float(x) for x in rng.choice([0.7, 1.0, 1.5, 3.0], 3))


@pytest.fixture(scope="module")
def cases(shared_data):
    found = [random_case(seed) for seed in range(NUM_CASES)]
    folder = shared_data("metric_pairs")
    reference, prediction = (
        nib.load(folder / f"spleen1_label_{name}.nii.gz") for name in ("gt", "auto")
    )
    box = np.s_[30:190, 120:270, :20]
    pair = (np.asarray(image.dataobj)[box] for image in (prediction, reference))
    found.append((*pair, tuple(float(x) for x in reference.header.get_zooms())))
    return [(*case, scored(*case)) for case in found]


def scored(prediction, reference, spacing_mm):
    return evaluate_case(
        prediction,
        reference,
        labels=LABELS,
        spacing_mm=spacing_mm,
        case_id="case",
        tolerance_mm=TOLERANCE_MM,
    )


def masks_of(cases):
    for prediction, reference, spacing_mm, scores in cases:
        for score in scores:
            value = "abc".index(score.label) + 1
            if score.voxels_prediction and score.voxels_reference:
                yield prediction == value, reference == value, spacing_mm, score


# MONAI calls its own deprecated argument.
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
def test_six_scores_equal_monai(cases):
    found = list(masks_of(cases))
    picked = [found[number] for number in range(0, len(found), 4)] + found[-1:]
    assert len({score.label for *_, score in picked}) == len(LABELS)
    for mask, truth, spacing, score in picked:
        y_pred, y = (torch.from_numpy(np.ascontiguousarray(m))[None, None] for m in (mask, truth))
        space = {"include_background": True, "spacing": spacing}
        hausdorff = monai_metrics.compute_hausdorff_distance
        expected = {
            "dice": monai_metrics.compute_dice(y_pred, y),
            "iou": monai_metrics.compute_iou(y_pred, y),
            "hd_mm": hausdorff(y_pred, y, **space),
            "hd95_mm": hausdorff(y_pred, y, percentile=95, **space),
            "assd_mm": monai_metrics.compute_average_surface_distance(
                y_pred, y, symmetric=True, **space
            ),
            "nsd": monai_metrics.compute_surface_dice(
                y_pred, y, class_thresholds=[TOLERANCE_MM], **space
            ),
        }
        for name, value in expected.items():
            assert getattr(score, name) == pytest.approx(value.item(), rel=SINGLE), name


def test_panoptic_quality_equals_monai_in_2d():
    everywhere = np.ones((3, 3))
    for seed in range(20):
        volume, truth, _ = random_case(seed)
        flat, flat_truth = volume[volume.shape[0] // 2], truth[truth.shape[0] // 2]
        (score, *_) = scored(flat, flat_truth, (1.0, 1.0))
        instances = [ndimage.label(m == 1, everywhere)[0] for m in (flat, flat_truth)]
        if not (instances[0].any() and instances[1].any()):
            continue
        expected = compute_panoptic_quality(*map(torch.from_numpy, instances), "pq")
        assert score.panoptic_quality == pytest.approx(float(expected), rel=1e-5)


def test_overlaps_and_surface_hausdorff_equal_simpleitk(cases):
    for mask, truth, spacing, score in list(masks_of(cases))[::3]:
        images = [SimpleITK.GetImageFromArray(m.astype(np.uint8)) for m in (mask, truth)]
        overlap = SimpleITK.LabelOverlapMeasuresImageFilter()
        overlap.Execute(images[0], images[1])  # source, target
        assert score.dice == pytest.approx(overlap.GetDiceCoefficient())
        assert score.iou == pytest.approx(overlap.GetJaccardCoefficient())
        assert score.recall == pytest.approx(1 - overlap.GetFalseNegativeError())
        # SimpleITK measures from all voxels of a mask; given the surfaces it measures what we do.
        borders = [SimpleITK.GetImageFromArray(border(m).astype(np.uint8)) for m in (mask, truth)]
        for image in borders:
            image.SetSpacing(spacing[::-1])
        hausdorff = SimpleITK.HausdorffDistanceImageFilter()
        hausdorff.Execute(*borders)
        assert score.hd_mm == pytest.approx(hausdorff.GetHausdorffDistance(), rel=1e-5)


def border(mask):
    return mask & ~ndimage.binary_erosion(mask)


def test_medpy_agrees_on_overlaps_hausdorff_and_assd(cases):
    binary = peer("medpy.metric.binary")
    for mask, truth, spacing, score in list(masks_of(cases))[::3]:
        assert score.dice == pytest.approx(binary.dc(mask, truth))
        assert score.iou == pytest.approx(binary.jc(mask, truth))
        assert score.precision == pytest.approx(binary.precision(mask, truth))
        assert score.recall == pytest.approx(binary.recall(mask, truth))
        assert score.hd_mm == pytest.approx(binary.hd(mask, truth, spacing))
        assert score.assd_mm == pytest.approx(binary.assd(mask, truth, spacing))


# surface-distance 0.1 reaches into scipy's old names.
@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")
def test_surface_distance_agrees_on_dice_and_on_moved_boxes(cases):
    """Its surface elements sit on voxel corners; where both surfaces are alike this cancels."""
    sd = peer("surface_distance")
    for mask, truth, _, score in masks_of(cases):
        assert score.dice == pytest.approx(sd.compute_dice_coefficient(truth, mask))
    box = np.zeros((24, 20, 18), np.uint8)
    box[4:12, 4:10, 4:9] = 1
    spacing = (0.7, 1.5, 3.0)
    for shift in [(1, 0, 0), (0, 3, 0), (2, 0, 4), (3, 3, 3)]:
        moved = np.roll(box, shift, (0, 1, 2))
        distances = sd.compute_surface_distances(box > 0, moved > 0, spacing)
        (score, *_) = scored(moved, box, spacing)
        assert score.hd_mm == pytest.approx(sd.compute_robust_hausdorff(distances, 100))


def test_components_equal_scipy(cases):
    for mask, truth, _, score in masks_of(cases[:12]):
        expected = brute_force.lesions(mask, truth)
        for name, value in expected.items():
            assert getattr(score, name) == pytest.approx(value), name
