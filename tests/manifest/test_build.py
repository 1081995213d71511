"""Manifests are built from image sets as they are found."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch

from segmed.errors import ManifestError, SegmedError, UsageError
from segmed.io import read_image
from segmed.io.dicom.seg import write_dicom_seg
from segmed.manifest import (
    Code,
    LabelClass,
    Manifest,
    build_manifest,
    check_manifest,
    read_manifest,
    write_manifest,
)

Shared = Callable[[str], Path]
SaveNifti = Callable[..., Path]


def errors_of(manifest: Manifest) -> list[str]:
    return [
        f"{one.case_id} {one.code}" for one in check_manifest(manifest) if one.severity == "error"
    ]


def folds_by_group(manifest: Manifest) -> dict[str, set[int | None]]:
    folds = defaultdict(set)
    for case in manifest.training:
        folds[case.group].add(case.fold)
    return folds


def test_hippocampus_is_built_from_its_dataset_json(shared_data: Shared, tmp_path: Path) -> None:
    manifest = build_manifest(shared_data("hippocampus"))
    assert (len(manifest.training), len(manifest.test)) == (208, 52)
    assert [(one.name, one.value) for one in manifest.labels] == [("anterior", 1), ("posterior", 2)]
    assert manifest.channels[0].modality == "MR"
    assert manifest.licence == "CC-BY-SA 4.0"
    again = read_manifest(write_manifest(manifest, tmp_path / "h.json"))
    some = again.model_copy(update={"training": again.training[:40], "test": again.test[:5]})
    assert errors_of(some) == []


@pytest.mark.slow
def test_all_of_hippocampus_passes_the_check(shared_data: Shared) -> None:
    assert errors_of(build_manifest(shared_data("hippocampus"))) == []


def test_isbi2012_masks_of_255_are_a_label(shared_data: Shared) -> None:
    manifest = build_manifest(shared_data("isbi2012"), label_names=["cell"])
    assert len(manifest.training) == 30
    assert [(one.name, one.value) for one in manifest.labels] == [("cell", 255)]
    assert errors_of(manifest) == []


def test_chase_keeps_both_eyes_of_a_child_together(shared_data: Shared) -> None:
    manifest = build_manifest(
        shared_data("chase_db1"),
        label_suffix="_1stHO",
        group_by=r"Image_(\d+)[LR]",
        label_names=["vessel"],
    )
    assert len(manifest.training) == 28
    assert len(manifest.channels) == 3
    folds = folds_by_group(manifest)
    assert len(folds) == 14
    assert all(len(one) == 1 for one in folds.values())
    assert errors_of(manifest.model_copy(update={"training": manifest.training[:8]})) == []


def test_chase_second_grader_can_be_chosen(shared_data: Shared) -> None:
    source = shared_data("chase_db1")
    manifest = build_manifest(source, format="raster", label_suffix="_2ndHO")
    assert str(manifest.training[0].label).endswith("Image_01L_2ndHO.png")
    with pytest.raises(ManifestError, match=r"--label-suffix _(1st|2nd)HO"):
        build_manifest(source)


def test_pgbm_has_three_channels_and_a_mask_series(shared_data: Shared) -> None:
    manifest = build_manifest(shared_data("pgbm"), label_names=["tumour"])
    assert [channel.name for channel in manifest.channels] == ["FLAIR_reg", "T1post", "T2_reg"]
    assert {channel.modality for channel in manifest.channels} == {"MR"}
    assert len(manifest.training) == 2
    assert all(len(case.image) == 3 for case in manifest.training)
    assert not any("PGBM" in case.id + case.group for case in manifest.training)
    assert check_manifest(manifest) == []  # nor is a note made of masks that are stored as integers


def test_a_dicom_tree_without_masks_is_refused(shared_data: Shared) -> None:
    with pytest.raises(ManifestError, match="has a mask"):
        build_manifest(shared_data("hippocampus_dicom"), format="dicom")


def nnunet_set(folder: Path, save_nifti: SaveNifti, **more: object) -> Path:
    label = np.zeros((5, 6, 4), dtype=np.uint8)
    label[2, 2, 2] = 1
    label[3, 2, 2] = 2
    for number in range(3):
        for channel in range(2):
            save_nifti(
                folder / "imagesTr" / f"c_{number}_000{channel}.nii.gz", seed=number * 2 + channel
            )
        save_nifti(folder / "labelsTr" / f"c_{number}.nii.gz", label)
    save_nifti(folder / "imagesTs" / "t_0000.nii.gz", seed=10)
    save_nifti(folder / "imagesTs" / "t_0001.nii.gz", seed=11)
    shutil.copy(folder / "labelsTr" / "c_0.nii.gz", folder / "labelsTr" / "._c_0.nii.gz")
    description = {
        "channel_names": {"0": "CT", "1": "T2"},
        "labels": {"background": 0, "Left kidney": 1, "tumour": 2},
        "file_ending": ".nii.gz",
        **more,
    }
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


def test_nnunet_raw_folders_bring_their_channels(tmp_path: Path, save_nifti: SaveNifti) -> None:
    manifest = build_manifest(nnunet_set(tmp_path / "Dataset001_Kidney", save_nifti))
    assert manifest.name == "Dataset001_Kidney"
    assert [one.modality for one in manifest.channels] == ["CT", "MR"]
    assert [(one.name, one.value) for one in manifest.labels] == [("left_kidney", 1), ("tumour", 2)]
    assert [case.id for case in manifest.training] == ["c_0", "c_1", "c_2"]
    assert manifest.training[1].image == ("imagesTr/c_1_0000.nii.gz", "imagesTr/c_1_0001.nii.gz")
    assert (manifest.test[0].id, manifest.test[0].label) == ("t", None)
    assert errors_of(manifest) == []


def test_nnunet_faults_are_named(tmp_path: Path, save_nifti: SaveNifti) -> None:
    folder = nnunet_set(tmp_path, save_nifti, labels={"background": 0, "whole": [1, "two"]})
    with pytest.raises(ManifestError, match="region 'whole' has the values"):
        build_manifest(folder)
    nnunet_set(tmp_path, save_nifti)
    (folder / "imagesTr" / "c_1_0001.nii.gz").unlink()
    with pytest.raises(ManifestError, match=r"'c_1' .*channels 0000; a case needs 0000, 0001"):
        build_manifest(folder)
    nnunet_set(tmp_path, save_nifti)
    (folder / "labelsTr" / "c_2.nii.gz").unlink()
    with pytest.raises(ManifestError, match="'c_2' has no label"):
        build_manifest(folder)


def test_paired_folders_group_sessions_of_a_patient(paired_set: Path) -> None:
    (paired_set / "images" / "._p0_s0.nii.gz").write_bytes(b"a double that macOS left")
    manifest = build_manifest(paired_set, group_by=r"^p\d", label_names=["head", "tail"])
    assert len(manifest.training) == 8
    assert [one.name for one in manifest.labels] == ["head", "tail"]
    assert {group: len(folds) for group, folds in folds_by_group(manifest).items()} == {
        "p0": 1, "p1": 1, "p2": 1, "p3": 1
    }  # fmt: skip
    assert manifest.folds == (0, 1, 2, 3)
    assert all(len(case.sha256) == 2 for case in manifest.training)


def test_paired_folders_may_hold_several_channels(tmp_path: Path, save_nifti: SaveNifti) -> None:
    for number in range(2):
        for channel in range(3):
            save_nifti(tmp_path / "images" / f"a{number}_000{channel}.nii", seed=channel + number)
        save_nifti(tmp_path / "masks" / f"a{number}.nii", np.ones((5, 6, 4), dtype=np.uint8))
    manifest = build_manifest(tmp_path)
    assert len(manifest.channels) == 3
    assert manifest.training[1].image[2] == "images/a1_0002.nii"
    assert manifest.labels[0].name == "foreground"


def test_the_same_source_and_seed_give_the_same_manifest(paired_set: Path) -> None:
    assert build_manifest(paired_set, seed=3) == build_manifest(paired_set, seed=3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"format": "zip"}, UsageError, "unknown manifest format 'zip': known are auto"),
        ({"format": "msd"}, ManifestError, "has no dataset.json"),
        ({"group_by": "child(\\d)"}, ManifestError, "does not occur in case id 'p0_s0'"),
        ({"group_by": "("}, ManifestError, "is not a regular expression"),
        ({"label_names": ["one"]}, ManifestError, "1 label names for 2 label values"),
        (
            {"group_by": "p"},
            ManifestError,
            "8 labelled cases, all of one group (patient); at least 2",
        ),
        ({"label_suffix": "_seg"}, ManifestError, "8 images have no mask"),
    ],
)
def test_options_that_cannot_work_are_refused(
    paired_set: Path, options: dict[str, object], error: type[SegmedError], message: str
) -> None:
    with pytest.raises(error) as caught:
        build_manifest(paired_set, **options)
    assert message in str(caught.value)


def test_pairs_that_do_not_pair_are_named(paired_set: Path) -> None:
    (paired_set / "images" / "p3_s1.nii.gz").unlink()
    with pytest.raises(ManifestError, match=r"1 masks have no image \(first p3_s1.nii.gz\)"):
        build_manifest(paired_set)
    (paired_set / "labels" / "p3_s1.nii.gz").unlink()
    (paired_set / "images" / "p0_s0.nii").write_bytes(b"")
    with pytest.raises(ManifestError, match="would be one case"):
        build_manifest(paired_set)


def test_empty_and_missing_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no known layout"):
        build_manifest(tmp_path)
    with pytest.raises(ManifestError, match="is not a folder; give"):
        build_manifest(tmp_path / "none")
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(ManifestError, match="contains no image files"):
        build_manifest(tmp_path)


def test_images_given_as_labels_are_refused(paired_set: Path, save_nifti: SaveNifti) -> None:
    many = np.arange(1000, dtype=np.int16).reshape(10, 10, 10)
    save_nifti(paired_set / "labels" / "p0_s0.nii.gz", many)
    with pytest.raises(ManifestError, match="these are not label maps"):
        build_manifest(paired_set)
    save_nifti(paired_set / "labels" / "p0_s0.nii.gz")
    with pytest.raises(ManifestError, match=r"label labels/p0_s0.nii.gz: .*no integer"):
        build_manifest(paired_set)


@pytest.fixture(scope="module")
def segmented_tree(shared_data: Shared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two real DICOM series, each with a DICOM-SEG of two structures on a few slices."""
    root = tmp_path_factory.mktemp("tree")
    labels = (
        LabelClass(name="head", value=3, code=Code(scheme="SCT", value="5366008", meaning="H")),
        LabelClass(name="tail", value=1),
    )
    for number, source in enumerate(sorted(shared_data("hippocampus_dicom").glob("study*"))[:2]):
        study = shutil.copytree(source, root / f"s{number}" / "images")
        image = read_image(study)
        label = np.zeros(tuple(image.shape[1:]), dtype=np.uint8)
        label[5:9, 5:9, 4:6] = 3
        label[10:12, 5:9, 5] = 1
        write_dicom_seg(
            study.parent / "seg" / "label.dcm",
            torch.from_numpy(label),
            like=image,
            labels=labels,
            model_name="hand",
            model_version="1",
        )
    return root


def test_dicom_seg_objects_bring_names_codes_and_values(segmented_tree: Path) -> None:
    manifest = build_manifest(segmented_tree)
    assert [(one.name, one.value) for one in manifest.labels] == [("tail", 1), ("head", 3)]
    assert manifest.labels[1].code == Code(scheme="SCT", value="5366008", meaning="H")
    assert len(manifest.training) == 2
    assert all(str(case.label).endswith("seg/label.dcm") for case in manifest.training)
    assert errors_of(manifest) == []


def test_a_study_with_two_masks_is_refused(segmented_tree: Path, tmp_path: Path) -> None:
    tree = shutil.copytree(segmented_tree, tmp_path / "tree")
    shutil.copytree(tree / "s1" / "seg", tree / "s1" / "again")
    segmentation = pydicom.dcmread(tree / "s1" / "again" / "label.dcm")
    segmentation.SeriesInstanceUID += ".1"
    segmentation.SOPInstanceUID += ".1"
    segmentation.file_meta.MediaStorageSOPInstanceUID = segmentation.SOPInstanceUID
    segmentation.save_as(tree / "s1" / "again" / "label.dcm")
    with pytest.raises(ManifestError, match="has 2 masks"):
        build_manifest(tree)


def test_series_that_share_a_folder_are_refused(segmented_tree: Path, tmp_path: Path) -> None:
    tree = shutil.copytree(segmented_tree, tmp_path / "tree")
    for path in list((tree / "s1" / "images").iterdir())[:3]:
        other = pydicom.dcmread(path)
        other.SeriesInstanceUID += ".1"
        other.SOPInstanceUID += ".1"
        other.SeriesDescription = "another"
        other.save_as(tree / "s1" / "images" / f"other_{path.name}")
    with pytest.raises(ManifestError, match="folder of its own"):
        build_manifest(tree)


def test_objects_and_texts_beside_the_images_are_no_series(
    segmented_tree: Path, tmp_path: Path
) -> None:
    tree = shutil.copytree(segmented_tree, tmp_path / "tree")
    shutil.move(tree / "s1" / "seg" / "label.dcm", tree / "s1" / "images" / "label.dcm")
    (tree / "s0" / "images" / "README").write_text("exported by hand", encoding="utf-8")
    (tree / "s0" / "images" / "LOCK").write_bytes(b"")
    manifest = build_manifest(tree)
    assert len(manifest.training) == 2
    assert errors_of(manifest) == []
