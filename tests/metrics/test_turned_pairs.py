"""Predictions and references whose axes differ are compared voxel by voxel."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_sets import stored_along

from segmed.errors import GeometryError
from segmed.metrics.label_pairs import LabelPair, read_pair
from segmed.structures import LabelClass

LABELS = (LabelClass(name="one", value=1),)
AFFINE = np.diag([1.0, 1.5, 3.0, 1.0])


def saved(path: Path, codes: str, *, shift_mm: float = 0.0) -> Path:
    values = np.zeros((5, 6, 7), np.uint8)
    values[1, 2, 3:6] = 1
    affine = AFFINE.copy()
    affine[0, 3] += shift_mm
    nib.save(stored_along(nib.Nifti1Image(values, affine), codes), path)
    return path


def pair_of(tmp_path: Path, first: str, second: str, shift_mm: float = 0.0) -> LabelPair:
    prediction = saved(tmp_path / "p.nii", first)
    return read_pair("a", prediction, saved(tmp_path / "r.nii", second, shift_mm=shift_mm), LABELS)


@pytest.mark.parametrize(
    ("first", "second"), [("RAS", "LPS"), ("ASL", "RAS"), ("PSL", "IRA"), ("RAS", "RAS")]
)
def test_sides_in_other_orders_are_equal(tmp_path: Path, first: str, second: str) -> None:
    pair = pair_of(tmp_path, first, second)
    assert pair.prediction.shape == pair.reference.shape
    assert int(pair.prediction.sum()) == 3
    np.testing.assert_array_equal(pair.prediction.numpy(), pair.reference.numpy())
    np.testing.assert_array_equal(  # the prediction is left as it is stored
        pair.prediction.numpy()[0], np.asarray(nib.load(tmp_path / "p.nii").dataobj)
    )


@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASL"])
def test_half_a_voxel_is_refused_and_the_case_named(tmp_path: Path, codes: str) -> None:
    with pytest.raises(GeometryError, match="the prediction of a and its reference are on diff"):
        pair_of(tmp_path, "RAS", codes, shift_mm=0.5)
