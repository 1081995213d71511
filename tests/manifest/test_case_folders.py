"""Folders of one case each are described with the patterns that read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segmed.errors import ManifestError
from segmed.io import read_image
from segmed.manifest import build_manifest
from segmed.manifest.case_folders import find_case_folders

KINDS = ("seg", "t1c", "t1n", "t2f", "t2w")


@pytest.fixture
def brats(tmp_path: Path, shared_data: Callable[[str], Path]) -> Path:
    """Folders as of BraTS 2023 from two sessions of each of three hearts; the last has no mask."""
    source = shared_data("left_atrium")
    names = sorted((source / "labelsTr").glob("*.nii.gz"))[:3]
    for number, path in enumerate(names):
        image = nib.load(source / "imagesTr" / path.name)
        voxels = np.asarray(image.dataobj)[::6, ::6, ::6].astype(np.float32)
        mask = (np.asarray(nib.load(path).dataobj)[::6, ::6, ::6] > 0).astype(np.uint8)
        for session in range(2):
            case = f"BraTS-GLI-{number:05d}-{session:03d}"
            arrays = (mask, voxels * 2, voxels, voxels.max() - voxels, voxels + session)
            for kind, array in zip(KINDS, arrays, strict=True):
                place = tmp_path / "brats" / case / f"{case}-{kind}.nii.gz"
                place.parent.mkdir(parents=True, exist_ok=True)
                nib.save(nib.Nifti1Image(array, image.affine), place)
    (tmp_path / "brats/BraTS-GLI-00002-001/BraTS-GLI-00002-001-seg.nii.gz").unlink()
    return tmp_path / "brats"


def test_the_suggested_patterns_build_the_manifest(brats: Path) -> None:
    found = find_case_folders(brats)
    assert found is not None
    assert (found.count, found.kinds, found.suffix) == (6, KINDS, ".nii.gz")
    with pytest.raises(ManifestError) as caught:
        build_manifest(brats)
    assert f"--image '{found.images}' --label '{found.label}'" in str(caught.value)
    manifest = build_manifest(brats, images=[found.images], label=found.label, group_by=r"^(.*)-")
    assert [channel.name for channel in manifest.channels] == ["t1c", "t1n", "t2f", "t2w"]
    assert [case.id for case in manifest.training] == [
        f"BraTS-GLI-0000{number}-00{session}" for number in range(3) for session in range(2)
    ][:5]
    assert len({case.group for case in manifest.training}) == 3
    assert manifest.remarks == ("1 of 6 cases dropped: no label (BraTS-GLI-00002-001)",)


def decathlon(folder: Path, brats: Path) -> Path:
    """The same channels as volumes of 4D files, as the Decathlon's brain tumours are."""
    rows = []
    for case in sorted(path for path in brats.iterdir() if len(list(path.iterdir())) == 5):
        images = [nib.load(case / f"{case.name}-{kind}.nii.gz") for kind in KINDS[1:]]
        voxels = np.stack([np.asarray(image.dataobj) for image in images], axis=-1)
        for kind, array in (("imagesTr", voxels), ("labelsTr", None)):
            place = folder / kind / f"{case.name}.nii.gz"
            place.parent.mkdir(parents=True, exist_ok=True)
            if array is None:
                place.write_bytes((case / f"{case.name}-seg.nii.gz").read_bytes())
            else:
                nib.save(nib.Nifti1Image(array, images[0].affine), place)
        rows.append(
            f'{{"image": "./imagesTr/{case.name}.nii.gz", "label": "labelsTr/{case.name}.nii.gz"}}'
        )
    (folder / "dataset.json").write_text(
        '{"name": "BRATS", "tensorImageSize": "4D", "labels": {"0": "background", "1": "tumour"}, '
        '"modality": {"0": "T1gd", "1": "T1w", "2": "FLAIR", "3": "T2w"}, '
        f'"training": [{", ".join(rows)}]}}',
        encoding="utf-8",
    )
    return folder


def test_volumes_of_a_decathlon_set_are_its_channels(tmp_path: Path, brats: Path) -> None:
    manifest = build_manifest(decathlon(tmp_path / "Task01", brats), group_by=r"^(.*)-")
    assert [channel.name for channel in manifest.channels] == ["T1gd", "T1w", "FLAIR", "T2w"]
    assert {channel.modality for channel in manifest.channels} == {"MR"}
    image = read_image(manifest.image_paths(manifest.training[0])[0], num_channels=4)
    for number, kind in enumerate(KINDS[1:]):
        alone = read_image(brats / f"BraTS-GLI-00000-000/BraTS-GLI-00000-000-{kind}.nii.gz")
        np.testing.assert_array_equal(image[number].numpy(), alone[0].numpy())


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["p1/T1.nii", "p1/T2.nii", "p2/T1.nii", "p2/T2.nii"], ("*/{T1,T2}.nii", "*/LABEL.nii")),
        (
            ["a/s1/x_ct.mha", "a/s1/x_gt.mha", "b/s9/y_ct.mha", "b/s9/y_gt.mha"],
            ("*/*/*_ct.mha", "*/*/*_gt.mha"),
        ),
        (
            ["p/a_T1.nii", "p/a_mask.nii.gz", "q/b_T1.nii", "q/b_mask.nii"],
            ("*/*_T1{.nii,.nii.gz}", "*/*_mask{.nii,.nii.gz}"),
        ),
        (["p1/001.png", "p1/002.png", "p1/003.png"], None),
        (["p1/scan.nii", "p2/scan.nii"], None),
        (["images/a.nii", "images/b.nii", "labels/a.nii", "labels/b.nii"], None),
    ],
)
def test_layouts_of_folders(
    tmp_path: Path, names: list[str], expected: tuple[str, str] | None
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    there = find_case_folders(tmp_path)
    assert (None if there is None else (there.images, there.label)) == expected
