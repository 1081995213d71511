"""Our reading behind MONAI's `LoadImage`: equal arrays, and refusals that remain refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name of its documentation
import torch
from monai.data import MetaTensor, list_data_collate
from monai.transforms import LoadImage
from PIL import Image

from segmed.errors import GeometryError, ImageError, UsageError
from segmed.io import ReadLimits, SafeReader, read_image, read_label

# MONAI's `LoadImage` makes all of its readers, one of which lacks NVIDIA's decoder.
pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")

SAMPLE = Path("hippocampus_sample")


@pytest.fixture
def sample(sample_manifest_path: Path) -> Callable[[str], Path]:
    return lambda kind: sample_manifest_path.parent / SAMPLE / kind / "hippocampus_001.nii.gz"


def load(path: object, **options: object) -> MetaTensor:
    return LoadImage(reader=SafeReader(**options), ensure_channel_first=True)(path)


def test_nifti_is_loaded_as_by_monais_own_reader(sample) -> None:
    ours = LoadImage(reader=SafeReader())(sample("images"))
    theirs = LoadImage(reader="NibabelReader")(sample("images"))
    assert torch.equal(ours.as_tensor(), theirs.as_tensor())
    assert torch.equal(ours.affine, theirs.affine)
    for key in ("original_affine", "spatial_shape", "space", "filename_or_obj"):
        np.testing.assert_array_equal(ours.meta[key], theirs.meta[key])
    assert np.isnan(ours.meta["original_channel_dim"])
    assert np.isnan(theirs.meta["original_channel_dim"])


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.nii", "a.png"])
def test_every_format_gives_what_read_image_gives(tmp_path, name) -> None:
    values = np.random.default_rng(1).integers(0, 200, (4, 5, 6)).astype(np.uint8)
    if name == "a.png":
        Image.fromarray(values[0]).save(tmp_path / name)
    else:
        image = sitk.GetImageFromArray(values)
        image.SetSpacing((0.5, 0.7, 2.0))
        image.SetOrigin((3.0, -4.0, 5.0))
        sitk.WriteImage(image, str(tmp_path / name))
    expected, got = read_image(tmp_path / name), load(tmp_path / name)
    assert torch.equal(got.as_tensor(), expected.as_tensor())
    assert torch.equal(got.affine, expected.affine)


def test_dicom_folder_gives_what_read_image_gives(shared_data) -> None:
    folder = shared_data("hippocampus_dicom") / "study2"
    expected, got = read_image(folder), load(folder)
    assert torch.equal(got.as_tensor(), expected.as_tensor())
    assert torch.equal(got.affine, expected.affine)


def test_several_files_are_channels_on_one_grid(sample, tmp_path) -> None:
    image = sample("images")
    got = load([image, image])
    assert got.shape == (2, *read_image(image).shape[1:])
    assert torch.equal(got[0].as_tensor(), got[1].as_tensor())
    moved = nib.load(image)
    nib.save(nib.Nifti1Image(moved.get_fdata(), np.diag([1, 1, 2, 1])), tmp_path / "other.nii")
    with pytest.raises(GeometryError):
        load([image, tmp_path / "other.nii"])


def test_four_dimensional_file_is_refused_or_gives_its_channels(tmp_path) -> None:
    values = np.random.default_rng(2).normal(size=(4, 5, 6, 2)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ImageError):
        load(tmp_path / "a.nii")
    got = load(tmp_path / "a.nii", num_channels=2)
    np.testing.assert_array_equal(got.numpy(), np.moveaxis(values, -1, 0))


def not_finite(path: Path) -> None:
    values = np.ones((4, 5, 6), np.float32)
    values[1, 2, 3] = np.nan
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)


def without_directions(path: Path) -> None:
    image = nib.Nifti1Image(np.ones((4, 5, 6), np.float32), np.eye(4))
    image.set_sform(np.diag([0.0, 1, 1, 1]), 1)
    image.set_qform(None, 0)
    nib.save(image, path)


@pytest.mark.parametrize("spoil", [not_finite, without_directions])
def test_refused_file_is_not_handed_to_another_reader(tmp_path, spoil) -> None:
    spoil(tmp_path / "a.nii")
    with pytest.raises(ImageError) as direct:
        read_image(tmp_path / "a.nii")
    assert LoadImage()(tmp_path / "a.nii").shape == (4, 5, 6)  # MONAI's own readers accept it
    with pytest.raises(ImageError) as through:
        load(tmp_path / "a.nii")
    assert through.value.reason == direct.value.reason


def test_limits_hold(sample) -> None:
    with pytest.raises(ImageError):
        load(sample("images"), limits=ReadLimits(max_voxels=100))


def test_labels_keep_integers(sample, tmp_path) -> None:
    loader = LoadImage(reader=SafeReader(is_label=True), dtype=None, ensure_channel_first=True)
    got = loader(sample("labels"))
    assert got.dtype == torch.int32
    assert torch.equal(got.as_tensor(), read_label(sample("labels")).as_tensor())
    values = np.full((4, 5, 6), 0.5, np.float32)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ImageError, match="integer"):
        loader(tmp_path / "a.nii")


def test_metadata_of_two_images_collate(sample) -> None:
    batch = list_data_collate([load(sample("images")), load(sample("images"))])
    assert batch.shape[:2] == (2, 1)


def test_unknown_options_are_refused(sample) -> None:
    with pytest.raises(UsageError, match="mmap"):
        SafeReader().read(sample("images"), mmap=False)


def test_suffixes(tmp_path) -> None:
    reader = SafeReader()
    assert reader.verify_suffix("a.nii.gz")
    assert reader.verify_suffix(["a.nrrd", "b.MHA", tmp_path])
    assert not reader.verify_suffix(["a.nrrd", "b.txt"])
