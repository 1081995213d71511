"""Scores over cases: rows of an evaluation, and Dice of regions and of annotated voxels."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
import torch

from segmed.encoding import LabelEncoding
from segmed.errors import GeometryError, MetricError
from segmed.metatensor import MetaTensor
from segmed.metrics import (
    METRICS,
    CaseScores,
    CumulativeScores,
    DiceScore,
    evaluate_case,
    scores_table,
    summarise,
)
from segmed.structures import LabelClass

LABELS = (LabelClass(name="a", value=3), LabelClass(name="b", value=7))
NESTED = (
    LabelClass(name="whole", value=1, region=(1, 2)),
    LabelClass(name="core", value=2),
)
SPACING = (1.0, 0.5, 2.0)


def maps(seed: int, cases: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor([0, 3, 7, 9])[torch.randint(0, 4, (cases, 1, 6, 7, 5), generator=generator)]


def rows_of(predicted: torch.Tensor, true: torch.Tensor, encoding: LabelEncoding) -> list:
    found = []
    for number, (one, other) in enumerate(zip(predicted[:, 0], true[:, 0], strict=True), start=1):
        found += evaluate_case(
            one, other, labels=encoding, spacing_mm=SPACING, case_id=str(number), tolerance_mm=0.5
        )
    return found


@pytest.mark.parametrize("ignore_value", [None, 9])
def test_batches_give_the_rows_of_evaluate_case_to_the_bit(ignore_value) -> None:
    predicted, true = maps(0), maps(1)
    predicted[2][predicted[2] == 7] = 0  # missed
    encoding = LabelEncoding(LABELS, ignore_value)
    metric = CaseScores(encoding, tolerance_mm=0.5)
    values = metric(predicted[:2], true[:2], spacing=SPACING)
    assert values.shape == (2, 2, len(METRICS))
    metric(predicted[2:], true[2:], spacing=SPACING)
    rows = rows_of(predicted, true, encoding)
    pd.testing.assert_frame_equal(metric.table(), scores_table(rows), check_exact=True)
    pd.testing.assert_frame_equal(metric.aggregate(), summarise(scores_table(rows)))
    assert metric.get_buffer().shape == (3, 2, len(METRICS))
    metric.reset()
    assert metric.rows == []


def test_threads_measure_and_one_keeps_the_order() -> None:
    predicted, true = maps(2, 8), maps(3, 8)
    metric = CaseScores(LABELS)

    def measure(number: int) -> list:
        sides = predicted[number, 0], true[number, 0]
        return metric.measure(*sides, spacing_mm=SPACING, case_id=f"c{number}")

    with ThreadPoolExecutor(4) as pool:
        for rows in pool.map(measure, range(8)):
            metric.add(rows)
    assert list(metric.table()["case"].unique()) == [f"c{number}" for number in range(8)]


def test_a_case_scored_twice_and_a_forgotten_spacing_are_refused() -> None:
    metric = CaseScores(LABELS)
    with pytest.raises(MetricError, match=r"spacing in mm: give spacing="):
        metric(maps(0, 1), maps(1, 1))
    metric(maps(0, 1), maps(1, 1), spacing=1.0, case_ids=["one"])
    metric(maps(0, 1), maps(1, 1), spacing=1.0, case_ids=["one"])
    with pytest.raises(MetricError, match="twice"):
        metric.table()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": None}, "got no y"),
        ({"y": maps(1, 2), "spacings": 1.0}, "got spacings"),
        ({"y": maps(1, 1)}, "shapes"),
        ({"y": maps(1, 2), "spacing": 1.0, "case_ids": ["one"]}, "1 case_ids are given for 2"),
    ],
)
def test_wrong_arguments_are_named(arguments, message) -> None:
    with pytest.raises(MetricError, match=message):
        CaseScores(LABELS)(maps(0, 2), **arguments)


def test_metatensors_bring_their_spacing_and_must_share_a_grid() -> None:
    affine = torch.diag(torch.tensor([*SPACING, 1.0], dtype=torch.float64))
    predicted, true = (MetaTensor(maps(seed, 1), affine=affine) for seed in (0, 1))
    metric = CaseScores(LABELS, tolerance_mm=0.5)
    metric(predicted, true)
    assert metric.rows == rows_of(maps(0, 1), maps(1, 1), LabelEncoding(LABELS))
    moved = MetaTensor(maps(0, 1), affine=affine + 5 * torch.eye(4)[:, [3, 0, 1, 2]])
    with pytest.raises(GeometryError):
        metric(moved, true)


def test_dice_of_many_classes_equals_that_of_their_masks() -> None:
    generator = torch.Generator().manual_seed(2)
    predicted = torch.randint(0, 50, (1, 1, 9, 8, 7), generator=generator)
    target = torch.randint(3, 60, (1, 1, 9, 8, 7), generator=generator)
    dice = DiceScore(64)(predicted, target)[0].tolist()
    for index, value in enumerate(dice, start=1):
        found, wanted = predicted == index, target == index
        total = int(found.sum() + wanted.sum())
        assert math.isnan(value) if not total else value == 2 * int((found & wanted).sum()) / total


def test_dice_of_regions_is_that_of_their_unions_without_unannotated_voxels() -> None:
    encoding = LabelEncoding(NESTED, ignore_value=9)
    target = torch.tensor([0, 1, 1, 2, 2, 3, 3]).reshape(1, 1, 1, 7)
    predicted = torch.tensor([1, 0, 2, 2, 1, 2, 1]).reshape(1, 1, 1, 7)
    metric = DiceScore(2, encoding=encoding)
    assert metric(predicted, target).tolist() == [[2 * 3 / (4 + 4), 2 * 1 / (2 + 2)]]
    assert metric.aggregate("mean_batch").tolist() == [0.75, 0.5]


@pytest.mark.parametrize("name", ["iou", "hd95_mm", "nsd"])
def test_scores_of_regions_in_class_indices_are_those_of_label_values(name) -> None:
    stored = LabelEncoding(
        (LabelClass(name="whole", value=3, region=(3, 7)), LabelClass(name="core", value=7)), 9
    )
    predicted, true = maps(4), maps(5)
    predicted[predicted == 9] = 0
    index_of = torch.zeros(10, dtype=torch.long)
    index_of[list(stored.stored_values)] = torch.arange(4)
    metric = CumulativeScores(2, (name,), encoding=stored, tolerance_mm=0.5)
    values = metric(index_of[predicted], index_of[true], spacing=SPACING)
    expected = [getattr(row, name) for row in rows_of(predicted, true, stored)]
    assert values.flatten().tolist() == expected


def test_an_encoding_needs_its_own_number_of_classes_and_class_indices() -> None:
    encoding = LabelEncoding(NESTED, ignore_value=9)
    with pytest.raises(MetricError, match="num_classes is 3, the encoding has 2 channels"):
        DiceScore(3, encoding=encoding)
    with pytest.raises(MetricError, match="no one-hot map"):
        DiceScore(2, encoding=encoding)(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4))
    with pytest.raises(MetricError, match="integers from 0 to 3"):
        DiceScore(2, encoding=encoding)(torch.full((1, 1, 4, 4), 4), torch.zeros(1, 1, 4, 4))
