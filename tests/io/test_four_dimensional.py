"""4D NIfTI files are channels only where that many channels are expected."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segmed.errors import ImageError
from segmed.io import read_image, read_images, source_of

AFFINE = np.array([[0, 1.5, 0, -4], [-2.0, 0, 0, 7], [0, 0, 3, 1], [0, 0, 0, 1]])


def four(path: Path, volumes: int, dtype: type = np.int16, *, more: tuple[int, ...] = ()) -> Path:
    voxels = np.random.default_rng(volumes).integers(0, 900, (4, 5, 6, volumes, *more))
    nib.save(nib.Nifti1Image(voxels.astype(dtype), AFFINE), path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.img"])
@pytest.mark.parametrize("trusted", [True, False])
def test_volumes_become_the_expected_channels(tmp_path: Path, name: str, *, trusted: bool) -> None:
    path = tmp_path / name
    voxels = np.random.default_rng(1).normal(size=(4, 5, 6, 3)).astype(np.float32)
    kind = nib.Nifti1Pair if name.endswith("img") else nib.Nifti1Image
    nib.save(kind(voxels, AFFINE), path)
    image = read_image(path, num_channels=3, trusted=trusted)
    np.testing.assert_array_equal(image.numpy(), np.moveaxis(voxels, 3, 0))
    np.testing.assert_allclose(image.affine, AFFINE)
    assert any("3 volumes are taken for the channels" in note for note in source_of(image).notes)


def test_scaled_volumes_keep_their_values(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(2 * 3 * 4 * 2, dtype=np.int16).reshape(2, 3, 4, 2), AFFINE)
    image.header.set_slope_inter(0.5, 10)
    path = tmp_path / "scaled.nii"
    nib.save(image, path)
    expected = np.moveaxis(nib.load(path).get_fdata(dtype=np.float32), 3, 0)
    np.testing.assert_array_equal(read_image(path, num_channels=2).numpy(), expected)


@pytest.mark.parametrize(
    ("volumes", "num_channels", "more", "reason"),
    [
        (2, 1, (), "four_dimensional"),
        (3, 2, (), "four_dimensional"),
        (2, 3, (), "four_dimensional"),
        (2, 2, (3,), "vector"),
    ],
)
def test_other_numbers_of_volumes_are_refused(
    tmp_path: Path, volumes: int, num_channels: int, more: tuple[int, ...], reason: str
) -> None:
    path = four(tmp_path / "a.nii.gz", volumes, more=more)
    with pytest.raises(ImageError) as caught:
        read_images([path], num_channels=num_channels)
    assert caught.value.reason == reason


def test_a_file_beside_others_is_no_set_of_channels(tmp_path: Path) -> None:
    paths = [four(tmp_path / f"{n}.nii", 2) for n in range(2)]
    for trusted in (True, False):
        with pytest.raises(ImageError, match="series of volumes"):
            read_images(paths, num_channels=2, trusted=trusted)


def test_a_torn_file_of_several_volumes_is_truncated(tmp_path: Path) -> None:
    path = four(tmp_path / "a.nii", 2)
    path.write_bytes(path.read_bytes()[:-40])
    zipped = tmp_path / "b.nii.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    for torn in (path, zipped):
        with pytest.raises(ImageError) as caught:
            read_image(torn, num_channels=2)
        assert caught.value.reason == "truncated"
