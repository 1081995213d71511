"""Scores of regions and of references with unannotated voxels, against counts of masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from segmed.encoding import LabelEncoding
from segmed.io import read_image
from segmed.metrics import check_quality, evaluate_case
from segmed.metrics.measures import measure
from segmed.structures import LabelClass

WHOLE = LabelClass(name="whole", value=1, region=(1, 2, 3))
CORE = LabelClass(name="core", value=2, region=(2, 3))
ENHANCING = LabelClass(name="enhancing", value=3)
NESTED = (WHOLE, CORE, ENHANCING)


def rows_of(prediction: np.ndarray, reference: np.ndarray, encoding: LabelEncoding):
    spacing_mm = (1.0,) * reference.ndim
    rows = evaluate_case(prediction, reference, labels=encoding, spacing_mm=spacing_mm, case_id="a")
    return {row.label: row for row in rows}


def test_regions_are_scored_as_the_unions_that_they_are_by_hand() -> None:
    reference = np.array([[0, 1, 1, 2, 3, 3, 0, 0]])
    prediction = np.array([[1, 1, 2, 2, 2, 3, 3, 0]])
    rows = rows_of(prediction, reference, LabelEncoding(NESTED))
    assert rows["whole"].dice == pytest.approx(2 * 5 / (7 + 5))
    assert rows["core"].dice == pytest.approx(2 * 3 / (5 + 3))
    assert rows["enhancing"].dice == pytest.approx(2 * 1 / (2 + 2))
    assert not any(row.is_region for row in rows.values())  # each enters the mean over labels


def test_unannotated_voxels_enter_no_score() -> None:
    reference = np.array([[0, 1, 1, 2, 9, 9, 9, 0]])
    prediction = np.array([[0, 1, 2, 2, 1, 2, 3, 0]])
    rows = rows_of(prediction, reference, LabelEncoding(NESTED, ignore_value=9))
    cut = [0, 1, 2, 3, 7]
    expected = rows_of(prediction[:, cut], reference[:, cut], LabelEncoding(NESTED))
    for name, row in rows.items():
        assert row.dice == pytest.approx(expected[name].dice, nan_ok=True)
        assert row.voxels_prediction == expected[name].voxels_prediction
        assert row.voxels_image == 5
    assert rows["enhancing"].both_empty


def test_real_tumour_masks_as_nested_regions(shared_data: Callable[[str], Path]) -> None:
    (folder,) = sorted(shared_data("pgbm").glob("PGBM-001/*/*MaskTumor*"))
    image = read_image(folder)
    tumour = np.asarray(image)[0] > 0
    flat = np.zeros((3, 3, 3), bool)
    flat[:, :, 1] = ndimage.generate_binary_structure(2, 1)
    masks = [tumour, *(ndimage.binary_erosion(tumour, flat, number) for number in (2, 4))]
    reference = sum(mask.astype(np.uint8) for mask in masks)
    assert set(np.unique(reference)) == {0, 1, 2, 3}
    prediction = np.roll(reference, 3, axis=0)
    unknown = np.zeros(tumour.shape, bool)
    unknown[:, : int(np.argwhere(tumour)[:, 1].mean())] = True
    covered = np.where(unknown, 200, reference)
    rows = rows_of(prediction, covered, LabelEncoding(NESTED, ignore_value=200))
    for region, mask in zip(NESTED, masks, strict=True):
        true = mask & ~unknown
        found = np.roll(mask, 3, axis=0) & ~unknown
        dice = 2 * np.sum(true & found) / (true.sum() + found.sum())
        assert rows[region.name].dice == pytest.approx(dice)
        assert 0.3 < dice < 1
    volumes = measure(image, image.new_tensor(reference[None]).int(), NESTED)["volumes_ml"]
    voxel_ml = 0.6875**2 * 6.5 / 1000
    assert volumes["whole"] == pytest.approx(tumour.sum() * voxel_ml, rel=1e-3)
    assert volumes["enhancing"] == pytest.approx(masks[2].sum() * voxel_ml, rel=1e-3)


def test_an_unsure_region_is_flagged_by_its_own_probabilities() -> None:
    array = np.zeros((6, 6), np.uint8)
    array[1:5, 1:5], array[2:4, 2:4] = 1, 2
    labels = (LabelClass(name="whole", value=1, region=(1, 2)), LabelClass(name="core", value=2))
    probs = np.stack([np.where(array > 0, 0.99, 0.01), np.where(array == 2, 0.55, 0.01)])
    flags = check_quality(array, labels=labels, spacing_mm=(1.0, 1.0), probs=probs)
    assert [(flag.label, flag.code) for flag in flags] == [("core", "entropy")]


def test_ten_thousand_labels_cost_what_occurs_of_them() -> None:
    labels = tuple(LabelClass(name=str(n), value=n) for n in range(1, 65536))
    reference = np.zeros((4, 4, 4), np.uint16)
    reference[0], reference[1] = 65535, 300
    rows = rows_of(np.where(reference == 300, 44, reference), reference, LabelEncoding(labels))
    assert rows["65535"].dice == 1.0
    assert rows["300"].missed
    assert rows["44"].false_positive  # 300 that wrapped to 8 bits would be 44
    assert len(rows) == 65535
