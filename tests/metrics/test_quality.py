"""Flags that need no reference."""

from __future__ import annotations

import numpy as np
import pytest

from segmed.errors import MetricError
from segmed.metrics import ShapeRange, check_quality, learn_ranges, measure_shapes
from segmed.structures import LabelClass

LABELS = [LabelClass(name="organ", value=3)]
SPACING_MM = (1.0, 1.0, 2.0)
SHAPE = (30, 30, 20)


def organ(size, start=(5, 5, 5), shape=SHAPE):
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = 3
    return labels


def shapes(labels):
    return measure_shapes(labels, labels=LABELS, spacing_mm=SPACING_MM)


@pytest.fixture(scope="module", name="ranges")
def training_ranges():
    rng = np.random.default_rng(0)
    return learn_ranges(shapes(organ(rng.integers((9, 9, 4), (12, 12, 6)))) for _ in range(20))


def flags_of(labels, ranges, **options):
    return check_quality(labels, labels=LABELS, spacing_mm=SPACING_MM, ranges=ranges, **options)


def codes_of(labels, ranges, **options):
    return {flag.code for flag in flags_of(labels, ranges, **options)}


def test_shape_of_a_box_is_worked_out_by_hand():
    (shape,) = shapes(organ((12, 6, 3)))
    assert shape.volume_ml == pytest.approx(12 * 6 * 3 * 2 / 1000)
    assert (shape.components, shape.compactness, shape.is_cut) == (1, 1.0, False)
    assert shape.elongation == pytest.approx(2.0)  # 12 mm over 6 mm: the variance of a box


def test_a_slanted_bar_is_as_long_as_a_straight_one():
    labels = np.zeros((20, 20), np.uint8)
    labels[np.arange(20), np.arange(20)] = 3
    (slanted,) = measure_shapes(labels, labels=LABELS, spacing_mm=(1.0, 1.0))
    assert slanted.elongation > 15
    assert slanted.is_cut


def test_a_structure_as_in_training_is_not_flagged(ranges):
    assert flags_of(organ((10, 10, 5)), ranges) == []


@pytest.mark.parametrize(
    ("labels", "code"),
    [
        (np.zeros(SHAPE, np.uint8), "missing"),
        (organ((3, 3, 2)), "volume"),
        (organ((22, 22, 12)), "volume"),
        (organ((24, 5, 4)), "shape"),
        (organ((10, 10, 5)) | organ((1, 1, 1), (20, 20, 15)), "components"),
        (organ((10, 10, 5), (0, 5, 5)), "cut"),
        (organ((10, 10, 5), (5, 5, 15)), "cut"),
    ],
)
def test_an_odd_structure_is_flagged_by_name(labels, code, ranges):
    flags = flags_of(labels, ranges)
    assert code in {flag.code for flag in flags}
    assert all("organ" in flag.message for flag in flags)


def test_a_structure_that_is_often_cut_in_training_is_not_flagged_for_it():
    ranges = learn_ranges(shapes(organ((10, 10, 5), (0, 5, 5))) for _ in range(6))
    assert codes_of(organ((10, 10, 5), (0, 5, 5)), ranges) == set()


def test_a_structure_often_absent_in_training_may_be_absent():
    cases = [organ((10, 10, 5)) * (number % 2) for number in range(12)]
    ranges = learn_ranges(shapes(case) for case in cases)
    assert codes_of(np.zeros(SHAPE, np.uint8), ranges) == set()


def test_too_few_training_cases_draw_no_range():
    ranges = learn_ranges(shapes(organ((10, 10, 5))) for _ in range(4))
    assert codes_of(organ((1, 1, 1)), ranges) == set()
    with pytest.raises(MetricError, match="no training case"):
        learn_ranges([])


def test_ranges_travel_as_json(ranges):
    for known in ranges:
        assert ShapeRange.model_validate_json(known.model_dump_json()) == known


def test_an_unsure_network_is_flagged(ranges):
    labels = organ((10, 10, 5))
    sure = np.stack([labels != 3, labels == 3]).astype(np.float32)
    assert codes_of(labels, ranges, probs=sure) == set()
    unsure = 0.5 + 0.2 * (sure - 0.5)
    (flag,) = flags_of(labels, ranges, probs=unsure)
    expected = -(0.6 * np.log2(0.6) + 0.4 * np.log2(0.4))
    assert (flag.code, flag.value) == ("entropy", pytest.approx(expected, abs=1e-6))


def test_folds_that_disagree_are_flagged(ranges):
    labels = organ((10, 10, 5))
    near, far = organ((10, 10, 5), (6, 5, 5)), organ((10, 10, 5), (11, 11, 5))
    assert codes_of(labels, ranges, members=[labels, near]) == set()
    (flag,) = flags_of(labels, ranges, members=[labels, far])
    assert (flag.code, flag.value) == ("disagreement", pytest.approx(4 * 4 / 100))
    assert codes_of(labels, ranges, members=[labels, np.zeros_like(labels)]) == {"disagreement"}


def test_members_and_probabilities_must_fit(ranges):
    labels = organ((10, 10, 5))
    with pytest.raises(MetricError, match="one grid"):
        flags_of(labels, ranges, members=[labels, labels[1:]])
    with pytest.raises(MetricError, match="background first"):
        flags_of(labels, ranges, probs=np.zeros((2, 3, 3, 3)))
