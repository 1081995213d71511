"""Several masks an image, folders of slices, and nnU-Net folders without a description."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segmed.errors import ImageError, ManifestError
from segmed.io import read_image, read_label, source_of
from segmed.io.limits import ReadLimits
from segmed.io.stack import read_stack
from segmed.manifest import build_manifest, check_manifest, image_digest

SaveNifti = Callable[..., Path]


def picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 255, shape, dtype=np.uint8)


def spot(row: int) -> np.ndarray:
    pixels = np.zeros((16, 18), dtype=np.uint8)
    pixels[row : row + 3, 4:8] = 255
    return pixels


@pytest.mark.parametrize("form", ["masks/{case}/{name}.png", "masks/{case}_{name}.png"])
def test_structures_are_named_by_their_files(tmp_path: Path, form: str) -> None:
    for case in ("a", "a_b", "c"):
        picture(tmp_path / f"images/{case}.png", noise(sum(map(ord, case)), 16, 18))
        for row, name in ((1, "liver"), (6, "spleen")):
            picture(tmp_path / form.format(case=case, name=name), spot(row))
    made = tmp_path / "made"
    manifest = build_manifest(tmp_path, masks_folder="masks", made_in=made)
    assert [(one.name, one.value) for one in manifest.labels] == [("liver", 1), ("spleen", 2)]
    label = read_label(manifest.root / str(manifest.training[1].label)).numpy()[0]
    assert (label[2, 5], label[7, 5], label[12, 5]) == (1, 2, 0)
    assert check_manifest(manifest) == []
    union = build_manifest(tmp_path, masks_folder="masks", masks="union", made_in=made)
    assert [one.value for one in union.labels] == [1]


def test_numbered_masks_are_united_and_counted(tmp_path: Path) -> None:
    for case in ("a", "b", "c"):
        picture(tmp_path / f"{case}.png", noise(ord(case), 16, 18))
        for number in range(2):
            picture(tmp_path / f"cells/{case}/{number}.png", spot(4 * number))
    manifest = build_manifest(tmp_path, masks_folder="cells", made_in=tmp_path / "made")
    assert [one.name for one in manifest.labels] == ["foreground"]
    assert any("6 masks of 3 cases (2 to 2 a case)" in line for line in manifest.remarks)
    picture(tmp_path / "cells/b/1.png", spot(1))
    with pytest.raises(ManifestError, match="shares voxels"):
        build_manifest(tmp_path, masks_folder="cells", masks="instances", made_in=tmp_path / "made")
    picture(tmp_path / "cells/b/2.png", noise(1, 9, 9))
    with pytest.raises(ManifestError, match="case 'b'"):
        build_manifest(tmp_path, masks_folder="cells", made_in=tmp_path / "made")


def test_masks_without_image_and_images_without_mask_are_named(tmp_path: Path) -> None:
    for case in ("a", "b"):
        picture(tmp_path / f"{case}.png", noise(ord(case), 16, 18))
        picture(tmp_path / f"cells/{case}_1.png", spot(2))
    picture(tmp_path / "cells/ab_1.png", spot(2))
    with pytest.raises(ManifestError, match=r"1 masks have no image \(first ab_1.png\)"):
        build_manifest(tmp_path, masks_folder="cells", made_in=tmp_path / "made")
    (tmp_path / "cells/ab_1.png").unlink()
    (tmp_path / "cells/b_1.png").unlink()
    with pytest.raises(ManifestError, match=r"1 images have no mask \(first b.png\)"):
        build_manifest(tmp_path, masks_folder="cells", made_in=tmp_path / "made")
    with pytest.raises(ManifestError, match="has no such folder"):
        build_manifest(tmp_path, masks_folder="nuclei")


def stack(folder: Path, slices: int = 5, *, seed: int = 0, start: int = 8) -> np.ndarray:
    volume = noise(seed, 16, 18, slices)
    for number in range(slices):
        picture(folder / f"s_{number + start}.png", volume[:, :, number])
    return volume


@pytest.mark.parametrize("trusted", [True, False])
def test_a_folder_of_slices_is_a_volume_in_the_order_of_its_numbers(
    tmp_path: Path, *, trusted: bool
) -> None:
    volume = stack(tmp_path / "k")  # s_8, s_9, s_10: not the order of the names
    image = read_image(tmp_path / "k", trusted=trusted)
    np.testing.assert_array_equal(image.numpy()[0], volume)
    assert any("no spacing" in note for note in source_of(image).notes)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: (folder / "s_10.png").unlink(), "missing_slice"),
        (lambda folder: picture(folder / "s_010.png", noise(1, 16, 18)), "doubled_slice"),
        (lambda folder: picture(folder / "s_10.png", noise(1, 16, 17)), "mixed_stack"),
        (lambda folder: picture(folder / "t_13.png", noise(1, 16, 18)), "mixed_stack"),
        (lambda folder: picture(folder / "front.png", noise(1, 16, 18)), "mixed_stack"),
        (lambda folder: (folder / "s_9.png").write_bytes(b"torn"), "unknown_format"),
    ],
)
def test_a_stack_with_a_fault_is_refused(tmp_path: Path, change, reason: str) -> None:
    stack(tmp_path / "k")
    change(tmp_path / "k")
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "k")
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("first", "second", "value"),
    [
        (np.uint8, np.uint16, 40_000),
        (np.uint16, np.uint8, 200),
        (np.uint16, np.int16, -300),
        (np.int32, np.float32, 0.5),
        (np.uint8, np.int8, -7),
    ],
)
def test_label_slices_of_several_types_keep_their_values(
    tmp_path: Path, first: type, second: type, value: float
) -> None:
    for number, dtype in enumerate((first, second, first)):
        pixels = np.full((16, 18), value if number == 1 else 99, dtype=dtype)
        tifffile.imwrite(tmp_path / f"slice_{number}.tif", pixels)
    voxels = read_stack(tmp_path, ReadLimits(), exact=True).array[0]
    assert [float(voxels[..., number].max()) for number in range(3)] == [99, value, 99]


def test_stacks_of_images_and_labels_make_a_manifest(tmp_path: Path) -> None:
    for number, case in enumerate("abc"):
        stack(tmp_path / f"images/{case}", seed=number)
        for position in range(5):
            picture(tmp_path / f"masks/{case}/{position:03d}.png", spot(position))
    manifest = build_manifest(tmp_path)
    assert [case.image for case in manifest.training] == [(f"images/{c}",) for c in "abc"]
    faults = check_manifest(manifest)
    assert {(one.severity, "no spacing" in one.message) for one in faults} == {("note", True)}
    label = read_label(tmp_path / "masks/b").numpy()[0]
    assert [int(label[5, 5, position]) for position in range(5)] == [0, 0, 0, 255, 255]


def test_the_digest_of_a_stack_knows_the_order_of_its_slices(tmp_path: Path) -> None:
    stack(tmp_path / "k")
    before = image_digest(tmp_path / "k")
    (tmp_path / "k/s_8.png").rename(tmp_path / "k/swap.png")
    (tmp_path / "k/s_9.png").rename(tmp_path / "k/s_8.png")
    (tmp_path / "k/swap.png").rename(tmp_path / "k/s_9.png")
    assert image_digest(tmp_path / "k") != before


def test_nnunet_folders_need_no_description(tmp_path: Path, save_nifti: SaveNifti) -> None:
    label = np.zeros((5, 6, 4), dtype=np.uint8)
    label[1:3, 1:3, 1] = 2
    for number in range(3):
        for channel in range(2):
            save_nifti(
                tmp_path / f"imagesTr/c{number}_{channel:04d}.nii.gz", seed=number + 5 * channel
            )
        save_nifti(tmp_path / f"labelsTr/c{number}.nii.gz", label)
    for channel in range(2):
        save_nifti(tmp_path / f"imagesTs/t_{channel:04d}.nii.gz", seed=20 + channel)
    manifest = build_manifest(tmp_path, channels=["T1", "FLAIR"], label_names=["lesion"])
    assert [one.name for one in manifest.channels] == ["T1", "FLAIR"]
    assert [case.id for case in manifest.test] == ["t"]
    assert build_manifest(tmp_path, format="nnunet").training[0].image == manifest.training[0].image
    with pytest.raises(ManifestError, match=r"names 3 channels .* has 2"):
        build_manifest(tmp_path, channels=["T1", "T2", "PD"])


def test_an_unknown_layout_shows_examples(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing", encoding="utf-8")
    with pytest.raises(ManifestError) as caught:
        build_manifest(tmp_path)
    for example in ("CASE_0000.nii.gz", "masks/CASE.png", "dataset.json", "--image 'sub-*/{T1"):
        assert example in str(caught.value)


@pytest.mark.parametrize("ending", ["_seg", "-outline", "_1stHO"])
def test_missing_mask_whose_name_has_another_ending_names_the_option(
    tmp_path: Path, ending: str
) -> None:
    for folder, name in (("images", "a"), ("labels", f"a{ending}"), ("images", "b")):
        (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / folder / f"{name}.png")
    with pytest.raises(ManifestError, match=rf"give --label-suffix {ending} for a{ending}\.png"):
        build_manifest(tmp_path)
