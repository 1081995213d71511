"""Masks and results that others left beside images are no inputs, in predict and in an archive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segmed.archive import FolderSource, NotImage, Study
from segmed.inference.inputs import find_all


def write(folder: Path, names: Sequence[str]) -> None:
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        voxels = np.random.default_rng(seed).random((4, 5, 6)).astype(np.float32)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)


def images_in(root: Path) -> list[str]:
    """The images that predict finds, which are those that an archive finds."""
    inputs = find_all([root], 1)
    found = sorted(str(case.files[0].relative_to(root)) for case in inputs.cases)
    items = list(FolderSource(root).studies())
    studies = sorted(item.place for item in items if isinstance(item, Study))
    assert studies == found
    left = {item.place for item in items if isinstance(item, NotImage)}
    assert {str(path.relative_to(root)) for path in inputs.passed_over} == left
    return found


@pytest.mark.parametrize(
    ("names", "images"),
    [
        (["x.nii.gz", "x_seg.nii.gz", "y.nii.gz", "y-label.nii"], ["x.nii.gz", "y.nii.gz"]),
        (["p1/t1.nii.gz", "p1/mask.nii.gz", "p1/aseg.nii.gz"], ["p1/t1.nii.gz"]),
        (["imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b.nii.gz"],
         ["imagesTr/a.nii.gz", "imagesTs/b.nii.gz"]),
        (["ct.nii.gz", "segmentations/liver.nii.gz"], ["ct.nii.gz"]),
        (["sub-1_T1w.nii.gz", "sub-1_dseg.nii.gz"], ["sub-1_T1w.nii.gz"]),
        (["lung_seg_001.nii.gz", "lung_seg_002.nii.gz"],
         ["lung_seg_001.nii.gz", "lung_seg_002.nii.gz"]),
        (["seg_one.nii.gz", "seg_two.nii.gz"], ["seg_one.nii.gz", "seg_two.nii.gz"]),
        (["rec02.nii.gz", "scan.seg.nii.gz"], ["rec02.nii.gz", "scan.seg.nii.gz"]),
        (["p1_t1.nii.gz", "p2_seg.nii.gz"], ["p1_t1.nii.gz", "p2_seg.nii.gz"]),
        (["p1_t1.nii.gz", "p1_TumorMask.nii.gz"], ["p1_t1.nii.gz"]),
        (["a.nii.gz", "MS_seg_0000.nii.gz"], ["MS_seg_0000.nii.gz", "a.nii.gz"]),
    ],
)  # fmt: skip
def test_masks_by_name_are_passed_over_where_names_tell_files_apart(
    tmp_path: Path, names: list[str], images: list[str]
) -> None:
    write(tmp_path, names)
    assert images_in(tmp_path) == images


def test_a_mask_that_is_named_itself_is_an_input(tmp_path: Path) -> None:
    write(tmp_path, ["x.nii.gz", "x_seg.nii.gz", "labels/y.nii.gz"])
    assert len(find_all([tmp_path / "x_seg.nii.gz"], 1).cases) == 1
    assert len(find_all([tmp_path / "labels"], 1).cases) == 1


def test_predictions_of_nnunet_are_no_inputs(tmp_path: Path) -> None:
    write(tmp_path, ["a_0000.nii.gz", "pred/a.nii.gz"])
    (tmp_path / "predict_from_raw_data_args.json").write_text("{}", encoding="utf-8")
    write(tmp_path, ["a.nii.gz"])
    for record in ("predict_from_raw_data_args.json", "plans.json"):
        (tmp_path / "pred" / record).write_text("{}", encoding="utf-8")
    inputs = find_all([tmp_path], 1)
    assert [case.files[0].name for case in inputs.cases] == ["a_0000.nii.gz"]
    assert "nnU-Net" in inputs.passed_over[tmp_path / "pred" / "a.nii.gz"]
    studies = [item for item in FolderSource(tmp_path).studies() if isinstance(item, Study)]
    assert [study.place for study in studies] == ["a_0000.nii.gz"]


def test_what_a_search_cannot_open_is_never_lost(tmp_path: Path) -> None:
    write(tmp_path, ["a.nii.gz"])
    (tmp_path / "b.nii.gz").symlink_to(tmp_path / "unmounted" / "b.nii.gz")
    inputs = find_all([tmp_path], 1)
    assert [case.files[0].name for case in inputs.cases] == ["a.nii.gz", "b.nii.gz"]


def test_results_of_an_archive_run_are_passed_over_as_one_folder(tmp_path: Path) -> None:
    write(tmp_path, ["a.nii.gz", "out/segmentations/b.nii.gz", "other/results/c.nii.gz"])
    (tmp_path / "out/ledger.sqlite").touch()
    (tmp_path / "other/ledger.sqlite").touch()
    assert images_in(tmp_path) == ["a.nii.gz", "other/results/c.nii.gz"]
    passed = find_all([tmp_path], 1).passed_over
    assert passed[tmp_path / "out/segmentations"] == "the results of an archive run"
    assert tmp_path / "out/segmentations/b.nii.gz" not in passed
    (tmp_path / "out/ledger.sqlite").unlink()
    passed = find_all([tmp_path], 1).passed_over
    assert "folder of masks" in passed[tmp_path / "out/segmentations/b.nii.gz"]


@pytest.mark.parametrize("name", ["scan.seg.dcm", "a.b.rtstruct.dcm", "x.seg.dcm"])
@pytest.mark.parametrize("content", [b"", b"cut off", bytes(200)])
def test_dicom_results_are_known_by_their_endings_whatever_is_left_of_them(
    tmp_path: Path, name: str, content: bytes
) -> None:
    write(tmp_path, ["a.nii.gz"])
    (tmp_path / name).write_bytes(content)
    found = find_all([tmp_path], 1)
    assert [case.files[0].name for case in found.cases] == ["a.nii.gz"]
    assert found.passed_over == {tmp_path / name: "a segmentation object or report of segmed"}
