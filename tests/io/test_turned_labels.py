"""Labels with their axes in another order or direction than their image's."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from small_sets import stored_along
from volumes_in_space import ORIENTATIONS, blobs, volume

from segmed.errors import GeometryError, ImageError
from segmed.geometry import same_grid
from segmed.io import grid_of, read_image, read_label, source_of, write_label
from segmed.io.dicom.write import write_series
from segmed.io.read import label_on_grid, load_label, turned_onto
from segmed.io.source import Source

CODES = ("LAS", "LPS", "ASL", "PSL", "IPR", "SAR")


def labelled(axes: str) -> tuple[MetaTensor, torch.Tensor]:
    """An image `[1, 9, 7, 6]` and its label `[9, 7, 6]`, which is equal to none of its mirrors."""
    image = volume(ORIENTATIONS[axes])
    return image, blobs(tuple(image.shape[1:]))


def stored_as(label: torch.Tensor, affine: object, codes: str, path: Path) -> Path:
    """The label in a file whose axes have other directions, turned by nibabel."""
    one = nib.Nifti1Image(label.numpy().astype(np.uint8), np.asarray(affine))
    one = stored_along(one, codes)
    if path.name.endswith((".nii", ".nii.gz")):
        nib.save(one, path)
        return path
    voxels = torch.from_numpy(np.asarray(one.dataobj)[None].copy())
    return write_label(path, voxels, like=MetaTensor(voxels, affine=torch.from_numpy(one.affine)))


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("axes", ["axial", "oblique", "sagittal", "left-handed"])
def test_a_label_is_read_on_the_grid_of_its_image(tmp_path: Path, axes: str, suffix: str) -> None:
    image, label = labelled(axes)
    found = set()
    for codes in CODES:
        path = stored_as(label, image.affine, codes, tmp_path / f"{codes}{suffix}")
        read = read_label(path, like=image)
        assert torch.equal(read.as_tensor()[0], label)
        assert same_grid(grid_of(read), grid_of(image))
        loaded = load_label(path, grid=grid_of(image))
        np.testing.assert_array_equal(loaded.array[0], label)
        assert loaded.source.stored_as == source_of(read).stored_as
        found.add(source_of(read).stored_as)
        assert source_of(read_label(path)).stored_as == ""
    assert found - {""} == set(CODES) - {grid_of(image).orientation}


@pytest.mark.parametrize("codes", ["ASL", "RAS", "LPI", "SPL"])
def test_a_label_of_a_series_may_keep_a_left_handed_order(tmp_path: Path, codes: str) -> None:
    image, label = labelled("left-handed")
    series = write_series(tmp_path / "series", image)
    folder = series if isinstance(series, Path) else tmp_path / "series"
    like = read_image(folder)
    assert np.linalg.det(np.asarray(like.affine)[:3, :3]) * np.linalg.det(image.affine) < 0
    path = stored_as(label, image.affine, codes, tmp_path / "label.nii.gz")
    read = read_label(path, like=like)
    assert same_grid(grid_of(read), grid_of(like))
    expected = MetaTensor(label[None], affine=image.affine)
    assert values_by_place(read) == values_by_place(expected)
    assert len(values_by_place(read)) == int((label > 0).sum())


def values_by_place(label: MetaTensor) -> dict[tuple[float, ...], int]:
    """The label of each place in the patient, to 0.01 mm."""
    affine, voxels = np.asarray(label.affine), label.numpy()[0]
    index = np.argwhere(voxels > 0)
    places = np.round(index @ affine[:3, :3].T + affine[:3, 3], 2) + 0.0
    return {
        tuple(place.tolist()): int(voxels[tuple(at)])
        for place, at in zip(places, index, strict=True)
    }


def test_labels_of_planes_and_of_one_volume_are_turned(tmp_path: Path) -> None:
    image, label = labelled("axial")
    plane = MetaTensor(image.as_tensor()[..., 2], affine=image.affine)
    flat = label[..., 2].numpy().astype(np.uint8)
    for name, values, order, signs in (
        ("mirrored", flat[::-1], [0, 1], (-1, 1)),
        ("swapped", flat.T, [1, 0], (1, 1)),
        ("both", flat.T[:, ::-1], [1, 0], (1, -1)),
    ):
        affine = np.asarray(image.affine)[:, [*order, 2, 3]].copy()
        for axis, sign in enumerate(signs):
            if sign < 0:
                affine[:3, 3] += affine[:3, axis] * (values.shape[axis] - 1)
                affine[:3, axis] *= -1
        path = tmp_path / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(values, affine), path)
        np.testing.assert_array_equal(read_label(path, like=plane).numpy()[0], flat)
    turned = nib.load(stored_as(label, image.affine, "PSL", tmp_path / "volume.nii"))
    four = nib.Nifti1Image(np.asarray(turned.dataobj)[..., None], turned.affine)
    nib.save(four, tmp_path / "four.nii")
    several = MetaTensor(image.as_tensor().repeat(3, 1, 1, 1), affine=image.affine)
    assert torch.equal(read_label(tmp_path / "four.nii", like=several).as_tensor()[0], label)
    two = nib.Nifti1Image(np.repeat(np.asarray(four.dataobj), 2, axis=3), turned.affine)
    nib.save(two, tmp_path / "two.nii")
    with pytest.raises(ImageError) as caught:
        read_label(tmp_path / "two.nii", like=image)
    assert caught.value.reason == "four_dimensional"


@pytest.mark.parametrize("codes", ["stored", "LAS", "PSL"])
@pytest.mark.parametrize("fault", ["half a voxel", "spacing", "shape", "2D"])
def test_a_label_that_still_differs_is_refused(tmp_path: Path, codes: str, fault: str) -> None:
    image, label = labelled("oblique")
    affine = np.asarray(image.affine).copy()
    if fault == "half a voxel":
        affine[:3, 3] += affine[:3, 0] / 2
    elif fault == "spacing":
        affine[:3, 2] *= 1.5
    elif fault == "shape":
        label = label[:, :-1]
    if fault == "2D":
        label = label[..., 0]
        path = tmp_path / "plane.nii"
        nib.save(nib.Nifti1Image(label.numpy().astype(np.uint8), affine), path)
    else:
        codes = grid_of(image).orientation if codes == "stored" else codes
        path = stored_as(label, affine, codes, tmp_path / "label.nii")
    with pytest.raises(GeometryError, match="the image and its label are on different") as caught:
        read_label(path, like=image)
    assert caught.value.reason == "other_grid"
    kept = load_label(path, grid=grid_of(image))  # for who tells all faults of a file
    np.testing.assert_array_equal(kept.array[0], np.asarray(nib.load(path).dataobj))
    with pytest.raises(GeometryError, match="the image and its label are on different"):
        label_on_grid(read_label(path), grid_of(image))


def test_mirrored_content_on_the_same_grid_is_left_as_it_is(tmp_path: Path) -> None:
    image, label = labelled("oblique")
    mirrored = label.flip(0)
    path = write_label(tmp_path / "label.nii.gz", mirrored, like=image)
    read = read_label(path, like=image)
    assert torch.equal(read.as_tensor()[0], mirrored)
    assert source_of(read).stored_as == ""
    loaded = load_label(path)
    assert turned_onto(loaded, grid_of(image)) is loaded
    assert label_on_grid(read, grid_of(image)) is read


def test_a_picture_is_turned_by_no_affine(tmp_path: Path) -> None:
    label = torch.zeros((5, 5), dtype=torch.int32)
    label[0, 1] = 3
    like = MetaTensor(torch.zeros((1, 5, 5)), affine=torch.eye(4, dtype=torch.float64))
    path = write_label(tmp_path / "label.png", label, like=like)
    affine = torch.diag(torch.tensor([-1.0, 1, 1, 1], dtype=torch.float64))
    affine[0, 3] = 4.0  # the same centres, if pixels had a place in the patient
    with pytest.raises(GeometryError, match="orientation"):
        read_label(path, like=MetaTensor(like.as_tensor(), affine=affine))
    with pytest.raises(GeometryError, match="orientation"):
        label_on_grid(read_label(path), grid_of(MetaTensor(like.as_tensor(), affine=affine)))


def test_a_turned_label_is_written_where_it_is(tmp_path: Path) -> None:
    image, label = labelled("oblique")
    read = read_label(stored_as(label, image.affine, "ASL", tmp_path / "a.nii"), like=image)
    again = write_label(tmp_path / "b.nii", read.as_tensor(), like=read)
    assert same_grid(grid_of(read_label(again)), grid_of(image))
    assert torch.equal(read_label(again, like=image).as_tensor()[0], label)
    assert Source.from_json(source_of(read).as_json()) == source_of(read)


def test_a_label_in_memory_is_turned_as_a_file_is(tmp_path: Path) -> None:
    image, label = labelled("oblique")
    path = stored_as(label, image.affine, "PSL", tmp_path / "a.nii")
    from_file = label_on_grid(read_label(path), grid_of(image))
    assert source_of(from_file).stored_as == "PSL"
    bare = label_on_grid(
        MetaTensor(read_label(path).as_tensor(), affine=read_label(path).affine), grid_of(image)
    )
    assert source_of(bare) is None
    for one in (from_file, bare):
        assert torch.equal(one.as_tensor()[0], label)
        assert same_grid(grid_of(one), grid_of(image))


def test_the_same_grid_costs_no_memory(tmp_path: Path) -> None:
    voxels = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (64, 64, 64)))
    image = MetaTensor(voxels[None].float(), affine=torch.eye(4, dtype=torch.float64))
    path = write_label(tmp_path / "label.nii", voxels, like=image)
    peaks = []
    for like in (None, None, image):
        tracemalloc.start()
        read_label(path, like=like)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] > voxels.numel()
    assert peaks[2] - peaks[1] < voxels.numel() / 8
