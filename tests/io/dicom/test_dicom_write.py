"""Volumes written as DICOM series come back in every orientation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from volumes_in_space import image_in_ras

from segmed.errors import GeometryError, ImageError, UsageError
from segmed.io import read_image
from segmed.io.dicom.series import scan
from segmed.io.dicom.write import Identity, write_series


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_every_orientation_round_trips(
    placed_volume: MetaTensor, tmp_path: Path, modality: str
) -> None:
    files = write_series(tmp_path, placed_volume, modality=modality)
    assert len(files) == 6
    image = read_image(tmp_path)
    values, affine = image_in_ras(image)
    expected, expected_affine = image_in_ras(placed_volume)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_allclose(affine, expected_affine, atol=1e-6)


def test_a_right_handed_stack_keeps_its_storage_order(
    oblique_volume: MetaTensor, tmp_path: Path
) -> None:
    write_series(tmp_path, oblique_volume)
    image = read_image(tmp_path)
    assert torch.equal(image.as_tensor(), oblique_volume.as_tensor())
    torch.testing.assert_close(image.affine, oblique_volume.affine, atol=1e-6, rtol=0)


@pytest.mark.parametrize("factor", [0.37, -1.0, 1e-4, 1e5])
def test_values_beyond_16_bits_are_scaled_within_their_stated_error(
    oblique_volume: MetaTensor, tmp_path: Path, factor: float
) -> None:
    image = oblique_volume * factor
    write_series(tmp_path, image)
    back = read_image(tmp_path)
    span = float(image.max() - image.min())
    assert float((back.as_tensor() - image.as_tensor()).abs().max()) <= span / 131070 * 1.01 + 1e-6
    if factor == -1.0:
        assert torch.equal(back.as_tensor(), image.as_tensor())


def test_constant_volumes_are_written(tmp_path: Path) -> None:
    image = MetaTensor(torch.full((1, 3, 3, 3), 0.5), affine=torch.eye(4))
    write_series(tmp_path, image)
    assert torch.equal(read_image(tmp_path).as_tensor(), image.as_tensor())


def test_equal_input_gives_equal_files_and_other_input_other_identifiers(
    oblique_volume: MetaTensor, tmp_path: Path
) -> None:
    first = write_series(tmp_path / "a", oblique_volume)
    second = write_series(tmp_path / "b", oblique_volume)
    third = write_series(tmp_path / "c", oblique_volume, identity=Identity(patient_id="X-2"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    uids = {pydicom.dcmread(path).SOPInstanceUID for path in (*first, *third)}
    assert len(uids) == 12
    assert pydicom.dcmread(third[0]).PatientID == "X-2"


def test_an_omitted_slice_makes_a_series_that_is_refused(
    oblique_volume: MetaTensor, tmp_path: Path
) -> None:
    assert len(write_series(tmp_path, oblique_volume, omit_slices=[2])) == 5
    assert scan(tmp_path)[0].reason == "missing_slice"
    with pytest.raises(ImageError, match="a slice is missing"):
        read_image(tmp_path)


def test_what_is_no_volume_is_not_written(oblique_volume: MetaTensor, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="MR, CT"):
        write_series(tmp_path, oblique_volume, modality="US")
    with pytest.raises(UsageError):
        write_series(tmp_path, MetaTensor(torch.zeros(2, 3, 3, 3)))
    sheared = torch.eye(4, dtype=torch.float64)
    sheared[0, 1] = 0.5
    with pytest.raises(GeometryError):
        write_series(tmp_path, MetaTensor(torch.zeros(1, 3, 3, 3), affine=sheared))
    assert list(tmp_path.iterdir()) == []
