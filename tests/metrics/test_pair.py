"""Pairs that are refused before they are scored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from tiny_data import affine_from

from segmed.errors import GeometryError, MetricError
from segmed.geometry import Grid
from segmed.metrics import evaluate_case
from segmed.structures import LabelClass

LABELS = [LabelClass(name="one", value=1), LabelClass(name="two", value=2)]
SHAPE = (4, 5, 6)
EMPTY = np.zeros(SHAPE, np.uint8)


def evaluate(prediction=EMPTY, reference=EMPTY, **options):
    options = {"labels": LABELS, "spacing_mm": (1.0, 1.0, 1.0), "case_id": "case", **options}
    return evaluate_case(prediction, reference, **options)


def test_another_shape_is_refused():
    with pytest.raises(MetricError, match="different shapes"):
        evaluate(EMPTY[1:])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64])
def test_fractions_are_not_labels(dtype):
    with pytest.raises(MetricError, match="integers"):
        evaluate(EMPTY.astype(dtype))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 1.0, float("nan"))])
def test_spacing_that_does_not_fit_is_refused(spacing):
    with pytest.raises(MetricError, match="spacing"):
        evaluate(spacing_mm=spacing)


def test_a_channel_axis_is_refused():
    with pytest.raises(MetricError, match="channel"):
        evaluate(EMPTY[None], EMPTY[None])


def test_negative_tolerance_is_refused():
    with pytest.raises(MetricError, match="tolerance"):
        evaluate(tolerance_mm=-1.0)


def test_another_grid_of_the_same_shape_is_refused():
    near = Grid(SHAPE, affine_from((1.0, 1.0, 1.0)))
    far = Grid(SHAPE, affine_from((1.0, 1.0, 1.0), (0.0, 2.0, 0.0)))
    with pytest.raises(GeometryError, match="apart"):
        evaluate(grids=(near, far))
    assert all(score.both_empty for score in evaluate(grids=(near, near)))


def test_metatensors_are_compared_by_their_own_affines():
    here = MetaTensor(torch.zeros(SHAPE, dtype=torch.uint8), affine=torch.eye(4))
    there = MetaTensor(
        torch.zeros(SHAPE, dtype=torch.uint8), affine=torch.diag(torch.tensor([1.0, 1, -1, 1]))
    )
    with pytest.raises(GeometryError, match="apart"):
        evaluate(there, here)
    assert len(evaluate(here, here)) == 2


def test_spacing_that_contradicts_the_grid_is_refused():
    grid = Grid(SHAPE, affine_from((1.0, 1.0, 3.0)))
    with pytest.raises(MetricError, match="spacing"):
        evaluate(grids=(grid, grid))


@pytest.mark.parametrize(
    ("labels", "regions"),
    [
        ([], None),
        ([*LABELS, LABELS[0]], None),
        ([*LABELS, LabelClass(name="three", value=2)], None),
        ([LabelClass(name="mean", value=1)], None),
        (LABELS, {"one": ("one", "two")}),
        (LABELS, {"all": ("one", "three")}),
        (LABELS, {"all": (1, 7)}),
        (LABELS, {"all": ()}),
    ],
)
def test_names_must_be_known_and_used_once(labels, regions):
    with pytest.raises(MetricError):
        evaluate(labels=labels, regions=regions)


def test_a_region_is_scored_as_one_structure():
    prediction, reference = EMPTY.copy(), EMPTY.copy()
    reference[0, 0, :3], reference[0, 0, 3:] = 1, 2
    prediction[0, 0, :] = 2
    one, two, whole = evaluate(prediction, reference, regions={"whole": ("one", 2)})
    assert one.missed
    assert two.dice == pytest.approx(2 * 3 / 9)
    assert (whole.dice, whole.hd_mm, whole.is_region) == (1.0, 0.0, True)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, np.int32, np.int64, np.uint64])
def test_integer_types_and_memory_orders_give_the_same_scores(dtype):
    rng = np.random.default_rng(1)
    maps = [rng.integers(0, 2, SHAPE).astype(np.uint8) for _ in range(2)]
    expected = evaluate(*maps)[0]
    first, second = (labels.astype(dtype) for labels in maps)
    assert evaluate(first, np.asfortranarray(second))[0] == expected
    assert evaluate(first[::-1, :, ::-1], second[::-1, :, ::-1])[0].hd_mm == expected.hd_mm
    if dtype is not np.uint64:
        assert evaluate(torch.from_numpy(first), torch.from_numpy(second))[0] == expected


def test_values_outside_the_labels_are_background():
    prediction, reference = EMPTY.astype(np.int64), EMPTY.astype(np.int64)
    prediction[0], prediction[1], prediction[2], reference[2] = 1, -7, 70000, 1
    reference[3] = 255
    one, two = evaluate(prediction, reference)
    assert (one.voxels_prediction, one.voxels_reference) == (30, 30)
    assert one.voxels_common == 0
    assert two.both_empty


def test_large_label_values_and_many_labels_are_found():
    labels = [LabelClass(name=f"l{v}", value=v) for v in (*range(1, 12), 300, 65535)]
    reference = np.zeros((13, 6), np.int32)
    for row, label in enumerate(labels):
        reference[row, 1:5] = label.value
    prediction = np.roll(reference, 1, axis=1)
    for score in evaluate(prediction, reference, labels=labels, spacing_mm=(2.0, 1.0)):
        assert score.dice == pytest.approx(6 / 8)
        assert score.hd_mm == pytest.approx(1.0)
