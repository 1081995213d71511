"""Scores of arbitrary small masks against brute force, and laws that they must obey."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segmed.metrics import METRICS, evaluate_case
from segmed.metrics import surface as surface_module
from segmed.structures import LabelClass
from tests.metrics import brute_force

LABELS = [LabelClass(name="one", value=1), LabelClass(name="two", value=5)]
EDGES = st.sampled_from([0.5, 0.68, 1.0, 1.7, 5.0])
SLOWLY = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@st.composite
def pairs(draw):
    axes = draw(st.integers(2, 3))
    shape = tuple(draw(st.integers(1, 7 if axes == 2 else 5)) for _ in range(axes))
    values = st.sampled_from([0, 0, 1, 1, 5, 9])
    first, second = (draw(hnp.arrays(np.uint8, shape, elements=values)) for _ in range(2))
    spacing = tuple(draw(EDGES) for _ in range(axes))
    return first, second, spacing, draw(st.sampled_from([0.0, 0.6, 1.0, 2.0, 7.0]))


def evaluate(prediction, reference, spacing_mm, tolerance_mm, **options):
    return evaluate_case(
        prediction,
        reference,
        labels=LABELS,
        spacing_mm=spacing_mm,
        case_id="case",
        tolerance_mm=tolerance_mm,
        **options,
    )


def agrees(got, prediction, reference, spacing_mm, tolerance_mm):
    if not (prediction.any() and reference.any()):
        assert got.both_empty or got.substituted
        return
    expected = brute_force.scores(prediction, reference, spacing_mm, tolerance_mm)
    measured = asdict(got)
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, abs=1e-9), name


@SLOWLY
@given(pairs())
def test_every_score_equals_brute_force(case):
    prediction, reference, spacing, tolerance = case
    regions = {"both": ("one", 5)}
    for got, values in zip(evaluate(*case, regions=regions), [(1,), (5,), (1, 5)], strict=True):
        masks = np.isin(prediction, values), np.isin(reference, values)
        agrees(got, *masks, spacing, tolerance)


@SLOWLY
@given(pairs())
def test_the_tree_alone_equals_brute_force(case):
    prediction, reference, spacing, tolerance = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surface_module, "SHELL_OVERHEAD", 10**12)
        got = evaluate(*case)
    agrees(got[0], prediction == 1, reference == 1, spacing, tolerance)


@SLOWLY
@given(pairs())
def test_scores_are_symmetric_but_for_precision_and_recall(case):
    prediction, reference, spacing, tolerance = case
    forth = evaluate(prediction, reference, spacing, tolerance)
    back = evaluate(reference, prediction, spacing, tolerance)
    for one, other in zip(forth, back, strict=True):
        for metric in METRICS:
            mirrored = {"precision": "recall", "recall": "precision"}.get(metric.name, metric.name)
            assert getattr(one, metric.name) == pytest.approx(getattr(other, mirrored), nan_ok=True)


@SLOWLY
@given(pairs())
def test_double_spacing_doubles_distances_and_nothing_else(case):
    prediction, reference, spacing, tolerance = case
    doubled = [2 * edge for edge in spacing]
    once = evaluate(prediction, reference, spacing, tolerance)
    twice = evaluate(prediction, reference, doubled, 2 * tolerance)
    for one, other in zip(once, twice, strict=True):
        for metric in METRICS:
            factor = 1 if metric.is_fraction else 2
            expected = factor * getattr(one, metric.name)
            assert getattr(other, metric.name) == pytest.approx(expected, nan_ok=True)


@SLOWLY
@given(pairs(), st.integers(0, 5))
def test_axis_order_and_memory_order_change_nothing(case, seed):
    prediction, reference, spacing, tolerance = case
    order = np.random.default_rng(seed).permutation(prediction.ndim)
    turned = evaluate(
        np.asfortranarray(prediction.transpose(order)),
        reference.transpose(order).astype(np.int64)[::1],
        [spacing[axis] for axis in order],
        tolerance,
    )
    for one, other in zip(evaluate(*case), turned, strict=True):
        for metric in METRICS:
            assert getattr(one, metric.name) == pytest.approx(
                getattr(other, metric.name), nan_ok=True
            )


def test_far_masks_are_answered_by_the_tree():
    shape = (60, 50, 40)
    prediction, reference = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    prediction[:9, :9, :9] = 1
    reference[50:, 40:48, 30:] = 1
    got = evaluate(prediction, reference, (1.0, 0.7, 2.0), 1.0)[0]
    expected = brute_force.all_distances(
        brute_force.surface(prediction > 0), brute_force.surface(reference > 0), (1.0, 0.7, 2.0)
    )
    assert got.hd_mm == pytest.approx(max(expected.min(axis=1).max(), expected.min(axis=0).max()))
    assert got.assd_mm == pytest.approx(
        np.concatenate([expected.min(axis=1), expected.min(axis=0)]).mean()
    )


@pytest.mark.parametrize("tolerance_mm", [1.0, 30.0])
def test_wide_and_narrow_bands_equal_a_distance_transform(tolerance_mm):
    rng = np.random.default_rng(3)
    masks = [np.pad(rng.random((12, 16, 8)) < 0.9, 2) for _ in range(2)]
    got = evaluate(*(m.astype(np.uint8) for m in masks), (1.0, 1.0, 4.0), tolerance_mm)[0]
    expected = [brute_force.band(m, tolerance_mm, (1.0, 1.0, 4.0)) for m in masks]
    wanted = len(expected[0] & expected[1]) / len(expected[0] | expected[1])
    assert got.boundary_iou == pytest.approx(wanted)


def test_a_wide_band_is_the_same_over_many_tiles():
    rng = np.random.default_rng(4)
    masks = [np.pad(rng.random((92, 60)) < 0.997, 7) for _ in range(2)]
    spacing, width = (0.5, 0.4), 12.0
    got = evaluate(*(m.astype(np.uint8) for m in masks), spacing, width)[0]
    expected = [brute_force.band(m, width, spacing) for m in masks]
    wanted = len(expected[0] & expected[1]) / len(expected[0] | expected[1])
    assert got.boundary_iou == pytest.approx(wanted)
    assert 0.9 < wanted < 1.0
