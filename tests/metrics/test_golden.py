"""Scores of masks of a few voxels, worked out by hand."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from segmed.metrics import CaseScore, evaluate_case
from segmed.structures import LabelClass

ONE = [LabelClass(name="organ", value=1)]


def score(prediction, reference, spacing_mm, **options) -> CaseScore:
    (only,) = evaluate_case(
        np.asarray(prediction, np.uint8),
        np.asarray(reference, np.uint8),
        labels=ONE,
        spacing_mm=spacing_mm,
        case_id="case",
        **options,
    )
    return only


def volume(shape, *voxels):
    array = np.zeros(shape, np.uint8)
    for voxel in voxels:
        array[voxel] = 1
    return array


def test_two_single_voxels_lie_their_distance_apart_in_millimetres():
    got = score(volume((5, 5, 5), (0, 0, 0)), volume((5, 5, 5), (1, 2, 3)), (3.0, 2.0, 0.5))
    distance = sqrt(3.0**2 + 4.0**2 + 1.5**2)
    assert got.hd_mm == pytest.approx(distance)
    assert got.hd95_mm == pytest.approx(distance)
    assert got.assd_mm == pytest.approx(distance)
    assert (got.dice, got.iou, got.precision, got.recall, got.f1) == (0, 0, 0, 0, 0)
    assert (got.nsd, got.boundary_iou, got.lesion_f1, got.panoptic_quality) == (0, 0, 0, 0)
    assert not got.substituted
    assert got.volume_similarity == 1.0


def test_overlap_ratios_count_voxels():
    prediction = volume((1, 6), (0, slice(0, 3)))
    reference = volume((1, 6), (0, slice(1, 6)))
    got = score(prediction, reference, (1.0, 1.0))
    assert got.voxels_common == 2
    assert got.dice == pytest.approx(2 * 2 / 8)
    assert got.iou == pytest.approx(2 / 6)
    assert got.precision == pytest.approx(2 / 3)
    assert got.recall == pytest.approx(2 / 5)
    assert got.f1 == pytest.approx(2 * (2 / 3) * (2 / 5) / (2 / 3 + 2 / 5))
    assert got.volume_similarity == pytest.approx(1 - 2 / 8)


def test_surface_scores_of_a_bar_that_is_too_short():
    """Every voxel of a bar one voxel thick is surface: distances 0 0 0, and 0 0 0 2 4 mm back."""
    got = score(
        volume((1, 8), (0, slice(0, 3))),
        volume((1, 8), (0, slice(0, 5))),
        (1.0, 2.0),
        tolerance_mm=2.0,
    )
    assert got.hd_mm == 4.0
    assert got.hd95_mm == pytest.approx(2.0 + 0.8 * 2.0)  # rank 3.8 of 0 0 0 2 4
    assert got.assd_mm == pytest.approx(6.0 / 8)
    assert got.nsd == pytest.approx(7 / 8)


def test_volume_border_counts_as_background():
    """A block that fills the volume has a hollow shell as surface: its core is 2 mm inside."""
    full = np.ones((5, 5, 5))
    core = volume((5, 5, 5), (2, 2, 2))
    got = score(core, full, (1.0, 1.0, 1.0))
    assert got.hd_mm == pytest.approx(2 * sqrt(3.0))
    shell = 5**3 - 3**3
    distances = [
        sqrt((i - 2) ** 2 + (j - 2) ** 2 + (k - 2) ** 2)
        for i in range(5)
        for j in range(5)
        for k in range(5)
        if {i, j, k} & {0, 4}
    ]
    assert len(distances) == shell
    assert got.assd_mm == pytest.approx((sum(distances) + 2.0) / (shell + 1))


def test_one_slice_volume_is_all_surface_and_a_flat_image_is_not():
    disc = np.zeros((7, 7), np.uint8)
    disc[1:6, 1:6] = 1
    dot = np.zeros((7, 7), np.uint8)
    dot[3, 3] = 1
    flat = score(dot, disc, (1.0, 1.0))
    slab = score(dot[..., None], disc[..., None], (1.0, 1.0, 1.0))
    ring = [d for d in _distances_to_centre() if d >= 2.0]
    assert flat.assd_mm == pytest.approx((sum(ring) + 2.0) / (len(ring) + 1))
    assert slab.assd_mm == pytest.approx(sum(_distances_to_centre()) / 26)


def _distances_to_centre():
    return [
        sqrt(i**2 + j**2) if max(abs(i), abs(j)) < 2 else max(2.0, sqrt(i**2 + j**2))
        for i in range(-2, 3)
        for j in range(-2, 3)
    ]


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 2)])
def test_missed_structure_scores_the_diagonal(shape):
    spacing = (2.0, 0.5, 3.0)[: len(shape)]
    diagonal = float(np.linalg.norm(np.multiply(shape, spacing)))
    got = score(np.zeros(shape), volume(shape, (0,) * len(shape)), spacing)
    assert (got.hd_mm, got.hd95_mm, got.assd_mm) == pytest.approx((diagonal,) * 3)
    _all_overlaps_are_zero(got)
    assert (got.missed, got.false_positive, got.both_empty, got.substituted) == (1, 0, 0, 1)
    assert (got.lesions_reference, got.lesions_prediction, got.lesions_matched) == (1, 0, 0)


def test_structure_found_where_there_is_none_scores_the_diagonal():
    shape = (4, 6, 2)
    got = score(volume(shape, (1, 1, 1), (3, 5, 1)), np.zeros(shape), (1.0, 1.0, 1.0))
    assert got.hd_mm == pytest.approx(sqrt(16 + 36 + 4))
    _all_overlaps_are_zero(got)
    assert (got.missed, got.false_positive, got.both_empty, got.substituted) == (0, 1, 0, 1)
    assert (got.lesions_reference, got.lesions_prediction, got.lesions_matched) == (0, 2, 0)


def _all_overlaps_are_zero(got):
    overlaps = (got.dice, got.iou, got.precision, got.recall, got.f1, got.volume_similarity)
    assert (*overlaps, got.nsd, got.boundary_iou) == (0,) * 8
    assert (got.lesion_f1, got.panoptic_quality) == (0, 0)


def test_both_empty_is_counted_and_not_scored():
    got = score(np.zeros((3, 3)), np.zeros((3, 3)), (1.0, 1.0))
    assert (got.missed, got.false_positive, got.both_empty, got.substituted) == (0, 0, 1, 0)
    scores = (got.dice, got.iou, got.f1, got.hd_mm, got.hd95_mm, got.assd_mm, got.nsd)
    assert np.isnan([*scores, got.boundary_iou, got.lesion_f1, got.panoptic_quality]).all()
    assert (got.voxels_prediction, got.voxels_reference) == (0, 0)


def test_missed_structure_is_worse_than_the_worst_that_can_be_measured():
    shape = (6, 7, 8)
    far = score(volume(shape, (0, 0, 0)), volume(shape, (5, 6, 7)), (1.0, 1.0, 1.0))
    missed = score(np.zeros(shape), volume(shape, (5, 6, 7)), (1.0, 1.0, 1.0))
    assert missed.hd_mm > far.hd_mm


def test_volumes_are_in_millilitres():
    got = score(volume((4, 4, 4), (0, 0, slice(0, 3))), volume((4, 4, 4), (0, 0, 0)), (10, 10, 5))
    assert got.volume_prediction_ml == pytest.approx(1.5)
    assert got.volume_reference_ml == pytest.approx(0.5)
    assert got.volume_difference_ml == pytest.approx(1.0)


def test_boundary_band_of_surface_voxels_only():
    """A 5x5 square against its 3x3 middle: rims of 16 and 8 voxels share nothing at width 0."""
    big, small = np.zeros((7, 7)), np.zeros((7, 7))
    big[1:6, 1:6] = 1
    small[2:5, 2:5] = 1
    assert score(small, big, (1.0, 1.0), tolerance_mm=0.0).boundary_iou == 0.0
    # At 1 mm the band of the big one takes in the 8 of the ring below: 24 of 25 voxels; the
    # small one is all band: 9 voxels, 8 of them common.
    assert score(small, big, (1.0, 1.0), tolerance_mm=1.0).boundary_iou == pytest.approx(8 / 25)


def test_lesions_are_matched_one_to_one():
    """One blob over two lesions detects one of them at most."""
    reference = volume((1, 9), (0, slice(0, 3)), (0, slice(4, 7)))
    prediction = volume((1, 9), (0, slice(0, 7)))
    got = score(prediction, reference, (1.0, 1.0))
    assert (got.lesions_reference, got.lesions_prediction, got.lesions_matched) == (2, 1, 1)
    assert got.lesion_f1 == pytest.approx(2 / 3)
    assert got.panoptic_quality == 0.0  # IoU 3/7 is not above one half


def test_panoptic_quality_weighs_overlap_and_detection():
    reference = volume((3, 9), (0, slice(0, 4)), (2, slice(0, 2)))
    prediction = volume((3, 9), (0, slice(0, 3)), (2, slice(7, 9)))
    got = score(prediction, reference, (1.0, 1.0))
    assert got.panoptic_quality == pytest.approx((3 / 4) / (1 + 0.5 + 0.5))
    assert got.lesion_f1 == pytest.approx(2 / 4)


def test_voxels_that_share_a_corner_are_one_component():
    diagonal = volume((4, 4, 4), (0, 0, 0), (1, 1, 1), (2, 0, 2), (3, 1, 1))
    got = score(diagonal, diagonal, (1.0, 1.0, 1.0))
    assert got.lesions_reference == 1
    apart = volume((4, 4, 4), (0, 0, 0), (2, 2, 2), (0, 3, 3))
    assert score(apart, apart, (1.0, 1.0, 1.0)).lesions_reference == 3


@pytest.mark.parametrize(("overlap", "matched"), [(1, 0), (2, 1)])
def test_a_lesion_is_detected_from_a_tenth_of_the_union(overlap, matched):
    """Ten voxels each: one in common is 1/19, two are 2/18."""
    reference = volume((1, 22), (0, slice(0, 10)))
    prediction = volume((1, 22), (0, slice(10 - overlap, 20 - overlap)))
    assert score(prediction, reference, (1.0, 1.0)).lesions_matched == matched
