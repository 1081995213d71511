"""One rule puts files together as the channels of a case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
from PIL import Image

from segmed.errors import ImageError
from segmed.io import read_images
from segmed.io.channel_files import channels_in, group_channels


def found(names: Sequence[str], num_channels: int) -> dict[str, tuple[str, ...]]:
    """Files by case; those of a case with a fault stand under `!case`."""
    cases = group_channels([Path(name) for name in names], num_channels)
    return {
        ("!" if one.fault else "") + one.case: tuple(map(str, one.files)) for one in cases
    }  # fmt: skip


@pytest.mark.parametrize(
    ("names", "num_channels", "expected"),
    [
        (
            ["in/b_0001.nii.gz", "in/b_0000.nii.gz", "in/a_0000.nii", "in/a_0001.nii.gz"],
            2,
            {
                "b": ("in/b_0000.nii.gz", "in/b_0001.nii.gz"),
                "a": ("in/a_0000.nii", "in/a_0001.nii.gz"),
            },
        ),
        (["a_0000.mha", "a_0002.mha"], 2, {"!a": ("a_0000.mha", "a_0002.mha")}),
        (["a_0001.nrrd", "a_0002.nrrd"], 2, {"!a": ("a_0001.nrrd", "a_0002.nrrd")}),
        (
            ["a_0000.nii", "a_0000.nii.gz", "a_0001.nii", "b_0000.nii", "b_0001.nii"],
            2,
            {
                "!a": ("a_0000.nii", "a_0000.nii.gz", "a_0001.nii"),
                "b": ("b_0000.nii", "b_0001.nii"),
            },
        ),
        (
            ["a_0000.nii", "a_0001.nii", "a_0002.nii"],
            2,
            {"!a": ("a_0000.nii", "a_0001.nii", "a_0002.nii")},
        ),
        (["plain.nii.gz"], 2, {"!plain": ("plain.nii.gz",)}),
        (["x/a_0000.nii", "y/a_0001.nii"], 2, {"!a": ("y/a_0001.nii",)}),
    ],
)
def test_channels_need_every_number_once(
    names: list[str], num_channels: int, expected: dict[str, tuple[str, ...]]
) -> None:
    assert found(names, num_channels) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a_0000.nii.gz", "b_0000.nii.gz", "c.nii.gz"], ["a", "b", "c"]),
        (["scan_0001.png", "scan_0002.png"], ["scan_0001", "scan_0002"]),
        (["scan_0000.png", "scan_0001.png"], ["scan_0000", "scan_0001"]),
        (["a_0000.nii", "a_0001.nii", "b_0000.nii"], ["!a", "b"]),
        (["a_0000.nii", "a_0000.nii.gz"], ["!a"]),
        (["a_0000.nii", "a.nii"], ["a_0000", "a"]),
        (["a_0000.nii", "b_0000.nii", "c_0001.nii"], ["a", "b", "!c"]),
        (["a_0000.nii", "c_0001.nii"], ["a", "!c"]),
        (["a_0000.nii", "c_0001.nii", "c_0002.nii", "d.nii"], ["a", "!c", "d"]),
        (["c_0001.nii"], ["c_0001"]),
        (["c_0001.nii", "d_0001.nii", "e_0002.nii"], ["c_0001", "d_0001", "e_0002"]),
        (["a_0000.nii", "scan_0012.nii"], ["a", "scan_0012"]),
        (
            ["liver_0000.nii", "spleen_0001.nii", "tumour_0002.nii"],
            ["liver", "spleen_0001", "tumour_0002"],
        ),
    ],
)
def test_files_of_one_channel_are_named_by_their_case(
    names: list[str], expected: list[str]
) -> None:
    assert list(found(names, 1)) == expected


def test_frames_of_two_patients_are_images() -> None:
    names = [f"{patient}_{frame:04d}.png" for patient in "ab" for frame in range(20)]
    assert list(found(names, 1)) == [name.removesuffix(".png") for name in names]


def test_a_file_with_all_channels_is_a_case(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 255, (6, 7, 3), dtype=np.uint8)
    for name in ("a_0000", "b_0001", "b_0002"):
        Image.fromarray(colour).save(tmp_path / f"{name}.png")
    volumes = np.zeros((4, 5, 6, 3), dtype=np.float32)
    nib.save(nib.Nifti1Image(volumes, np.eye(4)), tmp_path / "c.nii.gz")
    Image.fromarray(colour[..., 0]).save(tmp_path / "grey_0000.png")
    files = sorted(tmp_path.iterdir())
    assert [channels_in(path) for path in files] == [3, 3, 3, 3, 1]
    cases = {one.case: one.fault for one in group_channels(files, 3)}
    assert list(cases) == ["a", "b_0001", "b_0002", "c", "grey"]
    assert [case for case, fault in cases.items() if fault] == ["grey"]


def test_the_fault_says_which_numbers_are_needed() -> None:
    [case] = group_channels([Path("k_0000.nii"), Path("k_0003.nii")], 3)
    with pytest.raises(ImageError, match=r"case 'k': .*0000, 0003; .*0000, 0001, 0002") as caught:
        case.require_sound()
    assert caught.value.reason == "other_channels"


def test_a_damaged_file_counts_as_one_channel(tmp_path: Path) -> None:
    for name, content in {
        "a.png": b"\x89PNG\r\n\x1a\nxx",
        "b.nii.gz": b"\x1f\x8bxx",
        "c": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        assert channels_in(tmp_path / name) == 1
    assert channels_in(tmp_path / "absent.nii") == 1


def in_one_file(folder: Path, name: str, values: int) -> Path:
    """A volume with several values a voxel, as ITK and 3D Slicer write it."""
    if name.endswith(".nii.gz"):
        volume = np.zeros((4, 5, 6, 1, values), dtype=np.int16)
        nib.save(nib.Nifti1Image(volume, np.eye(4)), folder / name)
        return folder / name
    image = sitk.GetImageFromArray(np.zeros((6, 5, 4, values), np.int16), isVector=True)
    sitk.WriteImage(image, str(folder / name))
    return folder / name


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mha", "a.nrrd", "a.nhdr", "a.mhd"])
def test_files_of_several_values_a_voxel_are_refused_by_their_own_name(
    tmp_path: Path, name: str
) -> None:
    path = in_one_file(tmp_path, name, 2)
    assert channels_in(path) == 2
    [case] = group_channels([path], 2)
    with pytest.raises(ImageError) as caught:
        read_images(case.files, num_channels=2)
    assert caught.value.reason in {"vector", "four_dimensional"}
    [other] = group_channels([path], 3)
    assert other.fault.startswith("a file of 2 channels;")


@pytest.mark.parametrize(("mode", "count"), [("CMYK", 4), ("LA", 2), ("YCbCr", 3), ("I;16", 1)])
def test_bands_of_rasters_are_counted(tmp_path: Path, mode: str, count: int) -> None:
    Image.new(mode, (6, 7)).save(tmp_path / ("a.tif" if mode != "LA" else "a.png"))
    assert channels_in(next(tmp_path.iterdir())) == count
