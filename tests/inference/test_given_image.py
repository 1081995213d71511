"""Images as callers give them to `Predictor.predict`: every wrong one is refused in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_data import SIDE, hippocampus_package, write_case

from segmed import Predictor
from segmed.errors import ImageError, ModelError, UsageError
from segmed.io import read_image, read_label
from segmed.metatensor import MetaTensor

EYE = np.eye(4)
VOLUME = np.zeros((8, 9, 7), np.float32)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(hippocampus_package(), device="cpu", engine="torch")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_case(tmp_path, "case", 0)
    return tmp_path / "case_image.nii"


def test_path_metatensor_array_and_tensor_give_one_segmentation(
    predictor: Predictor, path: Path
) -> None:
    image = read_image(path)
    array = np.asarray(nib.load(path).dataobj)
    expected = predictor.predict(path).label
    for given, affine in (
        (str(path), None),
        ([path], None),
        (image, None),
        (array, EYE),
        (array[None].astype(np.float64), EYE.tolist()),
        (torch.from_numpy(array), torch.eye(4)),
        (np.asfortranarray(array), EYE),
        (array[::-1][::-1], EYE),
        (MetaTensor(torch.from_numpy(array), affine=torch.eye(4)), None),
    ):
        found = predictor.predict(given, affine=affine)
        assert found.label.shape == (1, SIDE, SIDE, SIDE)
        assert torch.equal(found.label.as_tensor(), expected.as_tensor())
        assert np.array_equal(np.asarray(found.label.affine), EYE)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float16, np.float64])
def test_numbers_of_any_type_are_taken(predictor: Predictor, dtype: Any) -> None:
    image = np.arange(8 * 9 * 7).reshape(8, 9, 7) % 200
    same = predictor.predict(image.astype(np.float32), affine=EYE).label
    found = predictor.predict(image.astype(dtype), affine=EYE).label
    assert torch.equal(found.as_tensor(), same.as_tensor())


NAN = VOLUME.copy()
NAN[1, 2, 3] = np.nan

WRONG: list[tuple[Any, Any, str]] = [
    (VOLUME, None, "needs affine="),
    (torch.zeros(8, 9, 7), None, "needs affine="),
    (VOLUME[0], EYE, r"takes images of shape \[1, \*3 spatial axes\], got \(9, 7\)"),
    (VOLUME[None, None], EYE, "of a batch give one image at a time"),
    (np.zeros((2, 8, 9, 7)), EYE, r"takes 1 channel \(T1\), got 2"),
    (np.zeros((8, 9, 7, 1)), EYE, "the channel axis comes first"),
    (np.zeros((0, 9, 7)), EYE, "contains no voxel"),
    (VOLUME > 0, EYE, "integers or floating-point numbers, got bool"),
    (torch.zeros(8, 9, 7) > 0, EYE, "got torch.bool"),
    (VOLUME.astype(complex), EYE, "got complex128"),
    (np.full((8, 9, 7), "a"), EYE, "integers or floating-point numbers"),
    (NAN, EYE, "1 voxels of the image are NaN or infinite"),
    (MetaTensor(torch.full((1, 8, 9, 7), torch.inf)), None, "504 voxels"),
    (VOLUME, np.eye(3), r"4x4 matrix, got shape \(3, 3\)"),
    (VOLUME, np.zeros((4, 4)), "last row 0 0 0 1"),
    (VOLUME, np.diag([1.0, 1.0, 0.0, 1.0]), "determinant is 0"),
    (VOLUME, np.diag([1.0, np.nan, 1.0, 1.0]), "must be finite"),
    (VOLUME, "RAS", "4x4 matrix of numbers"),
    (MetaTensor(torch.zeros(1, 8, 9, 7)), EYE, "has an affine of its own"),
    (Path("a.nii"), EYE, "has an affine of its own"),
    (nib.Nifti1Image(VOLUME, EYE), None, r"got Nifti1Image; of a nibabel image give get_fdata"),
    (VOLUME.tolist(), EYE, "got list"),
    ([], None, "got list"),
    (None, None, "got NoneType"),
    ({"image": VOLUME}, None, "got dict"),
]


@pytest.mark.parametrize(("given", "affine", "message"), WRONG)
def test_wrong_image_is_refused_in_one_line(
    predictor: Predictor, given: Any, affine: Any, message: str
) -> None:
    with pytest.raises((UsageError, ImageError), match=message) as caught:
        predictor.predict(given, affine=affine)
    assert "\n" not in str(caught.value)


def test_file_that_is_none_is_refused_by_name(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"absent\.nii"):
        predictor.predict(tmp_path / "absent.nii")


def test_segmentation_has_one_line_a_picture_and_a_file(
    predictor: Predictor, path: Path, tmp_path: Path
) -> None:
    found = predictor.predict(path)
    counts = {v: int((np.asarray(found.label) == v).sum()) for v in (1, 2)}
    line = repr(found)
    assert "\n" not in line
    assert f"anterior {counts[1] / 1000:.3g} ml, posterior {counts[2] / 1000:.3g} ml" in line
    assert line.startswith("Segmentation(16x16x16: ")
    assert found._repr_png_().startswith(b"\x89PNG")
    assert found.plot().size[0] > 300
    written = read_label(found.save(tmp_path / "out.nii.gz"))
    assert torch.equal(written.as_tensor(), found.label.as_tensor().to(torch.int32))


def test_predictor_names_model_and_device_in_one_line(predictor: Predictor) -> None:
    assert repr(predictor) == "Predictor(unet; cubes: anterior, posterior; cpu)"


def test_predictor_is_loaded_from_a_path(tmp_path: Path, path: Path) -> None:
    package = hippocampus_package()
    folder = package.save(tmp_path / "package")
    loaded = Predictor.load(str(folder), device="cpu", engine="torch")
    assert loaded.packages[0].hash == package.hash


def test_package_of_an_unregistered_architecture_says_how_to_register(tmp_path: Path) -> None:
    package = dataclasses.replace(hippocampus_package(), architecture="segresnet")
    folder = package.save(tmp_path / "package")
    with pytest.raises(ModelError, match=r"'segresnet' is not registered here.*register_archit"):
        Predictor.load(folder, device="cpu")
