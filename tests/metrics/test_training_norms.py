"""Norms of a training set, kept as plain values."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from segmed.metrics import ShapeRange
from segmed.metrics.measures import FLAGGED
from segmed.metrics.training_norms import (
    DISTRIBUTIONS,
    MAX_VALUES,
    RANGES,
    measure_reference,
    training_norms,
)
from segmed.structures import LabelClass

LABELS = [LabelClass(name="organ", value=3)]
AFFINE = torch.diag(torch.tensor([1.0, 1.0, 2.0, 1.0], dtype=torch.float64))


def case(edge: int, start: int = 5) -> dict[str, object]:
    voxels = np.random.default_rng(edge).normal(100.0 * edge, 1.0, (1, 30, 30, 20))
    label = np.zeros(voxels.shape, np.int32)
    label[0, start : start + edge, start : start + edge, 5:10] = 3
    image = MetaTensor(torch.from_numpy(voxels), affine=AFFINE)
    return measure_reference(image, MetaTensor(torch.from_numpy(label), affine=AFFINE), LABELS)


def test_norms_are_json_and_hold_every_case() -> None:
    edges = (9, 8, 10, 7, 9, 11)
    norms = training_norms([case(edge) for edge in edges])
    assert json.loads(json.dumps(norms)) == norms
    known = ShapeRange.model_validate(norms[RANGES][0])
    assert (known.label, known.cases, known.present) == ("organ", 6, 1.0)
    found = norms[DISTRIBUTIONS]
    expected = sorted(edge * edge * 5 * 2 / 1000 for edge in edges)
    assert found["volume_ml:organ"] == pytest.approx(expected)
    assert found["spacing_mm:2"] == [2.0] * 6
    assert found["intensity:0:median"][0] == pytest.approx(700, abs=1)
    assert found[FLAGGED] == [0.0] * 6


def test_training_case_at_the_border_counts_as_flagged() -> None:
    norms = training_norms([case(8), case(8, start=0)])
    assert norms[DISTRIBUTIONS][FLAGGED] == [0.0, 1.0]


def test_large_set_keeps_ends_and_median_of_each_feature() -> None:
    one = case(8)
    cases = [{**one, "volumes_ml": {"organ": float(n)}} for n in range(2001)]
    kept = training_norms(cases)[DISTRIBUTIONS]["volume_ml:organ"]
    assert len(kept) == MAX_VALUES
    assert (kept[0], kept[-1]) == (0.0, 2000.0)
    assert np.median(kept) == pytest.approx(1000, abs=3)


def test_no_case_gives_no_norms() -> None:
    assert training_norms([]) == {}
