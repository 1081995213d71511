"""The scores as MONAI metrics: our numbers, and our policy for empties where MONAI's is another."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.metrics import DiceMetric, HausdorffDistanceMetric

from segmed.errors import GeometryError, MetricError, UsageError
from segmed.metrics import (
    METRICS,
    CumulativeScores,
    DiceScore,
    SurfaceScores,
    evaluate_case,
    scores_table,
    summarise,
)
from segmed.structures import LabelClass

LABELS = [LabelClass(name="a", value=1), LabelClass(name="b", value=2)]
SPACING = (1.0, 0.5, 2.0)


def maps(seed: int, cases: int = 3) -> torch.Tensor:
    values = np.random.default_rng(seed).integers(0, 3, (cases, 1, 6, 7, 5))
    return torch.from_numpy(values)


def one_hot(indices: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(indices[:, 0], 3).movedim(-1, 1).float()


def table(predicted: torch.Tensor, true: torch.Tensor):
    rows = []
    for number, (one, other) in enumerate(zip(predicted[:, 0], true[:, 0], strict=True)):
        rows += evaluate_case(
            one, other, labels=LABELS, spacing_mm=SPACING, case_id=str(number), tolerance_mm=0.5
        )
    return rows


@pytest.mark.parametrize("name", [metric.name for metric in METRICS])
@pytest.mark.parametrize("form", [one_hot, lambda indices: indices])
def test_every_score_is_that_of_evaluate_case(name, form) -> None:
    predicted, true = maps(0), maps(1)
    predicted[1][predicted[1] == 2] = 0  # missed in the second case
    metric = CumulativeScores(3, (name,), tolerance_mm=0.5)
    for part in (slice(0, 2), slice(2, 3)):
        metric(form(predicted[part]), form(true[part]), spacing=SPACING)
    rows = table(predicted, true)
    expected = [getattr(row, name) for row in rows]
    assert metric.get_buffer().flatten().tolist() == pytest.approx(expected)
    means = summarise(scores_table(rows)).set_index(["label", "metric"])["mean"]
    assert metric.aggregate().item() == pytest.approx(means["mean", name])
    by_label = metric.aggregate("mean_batch").tolist()
    assert by_label == pytest.approx([means["a", name], means["b", name]])


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
def test_dice_and_hausdorff_are_monais_where_nothing_is_empty() -> None:
    predicted, true = one_hot(maps(0)), one_hot(maps(1))
    theirs = DiceMetric(include_background=False, reduction="mean")
    theirs(predicted, true)
    ours = DiceScore(3)
    ours(predicted, true)
    assert ours.aggregate().item() == pytest.approx(theirs.aggregate().item())
    distance = HausdorffDistanceMetric(include_background=False, reduction="mean")
    distance(predicted, true, spacing=SPACING)
    surface = SurfaceScores(3, ("hd_mm",))
    surface(predicted, true, spacing=SPACING)
    assert surface.aggregate().item() == pytest.approx(distance.aggregate().item())


def test_missed_structure_scores_the_diagonal_and_both_empty_enters_no_mean() -> None:
    true = torch.zeros(2, 1, 6, 7, 5, dtype=torch.long)
    true[0, 0, 1:3, 1:3, 1:3] = 1
    surface, dice = SurfaceScores(3, ("hd_mm", "hd95_mm", "assd_mm", "nsd")), DiceScore(3)
    surface(torch.zeros_like(true), true, spacing=SPACING)
    dice(torch.zeros_like(true), true)
    diagonal = math.dist((0, 0, 0), (6 * 1.0, 7 * 0.5, 5 * 2.0))
    assert [value.item() for value in surface.aggregate()] == pytest.approx([diagonal] * 3 + [0.0])
    assert dice.aggregate().item() == 0.0
    scores = dice.aggregate("none")
    assert scores[0, 0] == 0
    assert scores[0, 1].isnan()
    assert scores[1].isnan().all()


@pytest.mark.parametrize("metric", [DiceScore(2), SurfaceScores(2)])
def test_mean_of_nothing_is_refused(metric) -> None:
    metric.reset()
    with pytest.raises(MetricError, match="no score to average"):
        metric.aggregate()
    nothing = torch.zeros(1, 1, 4, 4, 4)
    metric(nothing, nothing, spacing=1.0)
    with pytest.raises(MetricError, match="1 cases"):
        metric.aggregate()


def test_metatensor_brings_its_spacing_and_other_grids_are_refused() -> None:
    affine = torch.diag(torch.tensor([*SPACING, 1.0], dtype=torch.float64))
    predicted, true = maps(0, 1), MetaTensor(maps(1, 1), affine=affine)
    given, found = SurfaceScores(3, ("hd_mm",)), SurfaceScores(3, ("hd_mm",))
    given(predicted, true.as_tensor(), spacing=SPACING)
    found([predicted[0]], [true[0]])
    assert found.aggregate().item() == given.aggregate().item()
    with pytest.raises(GeometryError):
        found(MetaTensor(predicted), true)
    with pytest.raises(MetricError, match="spacing"):
        found(predicted, true.as_tensor())


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        (torch.rand(1, 3, 4, 4), "one-hot"),
        (torch.zeros(1, 3, 4, 4), "one-hot"),
        (torch.full((1, 1, 4, 4), 3), "class indices"),
        (torch.full((1, 1, 4, 4), 0.5), "class indices"),
        (torch.zeros(1, 2, 4, 4), "shape"),
        (torch.zeros(1, 1, 4, 5), "shapes"),
    ],
)
def test_predictions_that_are_no_classes_are_refused(predicted, message) -> None:
    with pytest.raises(MetricError, match=message):
        DiceScore(3)(predicted, torch.zeros(1, 1, 4, 4))


def test_options_without_a_meaning_are_refused() -> None:
    with pytest.raises(UsageError, match="sum"):
        DiceScore(3, reduction="sum")
    with pytest.raises(UsageError, match="hd99"):
        CumulativeScores(3, ("hd99",))
    with pytest.raises(UsageError, match="dice"):
        SurfaceScores(3, ("dice",))
    with pytest.raises(MetricError, match="background"):
        DiceScore(1)
    with pytest.raises(MetricError, match="reference"):
        DiceScore(3)(torch.zeros(1, 1, 4, 4))
    with pytest.raises(MetricError, match="colour"):
        DiceScore(3)(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), colour=1)
