"""Lists of cases in the spellings of the field: read as meant, or refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from segmed.errors import ManifestError
from segmed.io import read_label
from segmed.manifest import build_manifest, check_manifest, read_manifest

SaveNifti = Callable[..., Path]
LABELS = {"0": "background", "1": "PZ", "2": "TZ"}


def label_of(shape: tuple[int, ...] = (5, 6, 4)) -> np.ndarray:
    label = np.zeros(shape, dtype=np.uint8)
    label[1:3, 2:4, 1] = 1
    label[3, 2:4, 1:3] = 2
    return label


@pytest.fixture
def folder(tmp_path: Path, save_nifti: SaveNifti) -> Path:
    """Files of four cases in two channels, T2 and ADC, with labels."""
    for case in range(4):
        for number, channel in enumerate(("t2", "adc")):
            save_nifti(tmp_path / f"img/p{case}_{channel}.nii.gz", seed=case * 2 + number)
        save_nifti(tmp_path / f"lab/p{case}.nii.gz", label_of())
    return tmp_path


def rows(**changes: Any) -> list[dict[str, Any]]:
    return [
        {
            "image": [f"./img/p{n}_t2.nii.gz", f"./img/p{n}_adc.nii.gz"],
            "label": f"./lab/p{n}.nii.gz",
            **changes,
        }
        for n in range(4)
    ]


def write(folder: Path, **content: Any) -> Path:
    told = {"modality": {"0": "T2", "1": "ADC"}, "labels": LABELS, "training": rows(), **content}
    kept = {key: value for key, value in told.items() if value is not None}
    (folder / "dataset.json").write_text(json.dumps(kept), encoding="utf-8")
    return folder


def test_lists_of_images_are_channels_and_name_the_case(folder: Path) -> None:
    manifest = build_manifest(write(folder), num_folds=2)
    assert [case.id for case in manifest.training] == ["p0", "p1", "p2", "p3"]
    assert manifest.training[1].image == ("img/p1_t2.nii.gz", "img/p1_adc.nii.gz")
    assert [(one.name, one.modality) for one in manifest.channels] == [("T2", "MR"), ("ADC", "MR")]
    assert check_manifest(manifest) == []


@pytest.mark.parametrize(
    "content",
    [
        {"modality": ["T2", "ADC"]},
        {"modality": None, "channel_names": None},
        {"labels": {"background": 0, "PZ": 1, "TZ": 2}},
        {"labels": ["background", "PZ", "TZ"]},
        {"labels": {"background": 0, "PZ": "1", "TZ": 2.0}},
        {"labels": None},
        {"training": rows(label=None) and [{**row, "label": [row["label"]]} for row in rows()]},
        {"training": dict(enumerate(rows()))},
        {"training": None, "Training": [{k.upper(): v for k, v in row.items()} for row in rows()]},
        {"training": None, "TRAINING": rows(), "labels": None, "LABELS": LABELS},
    ],
)
def test_other_spellings_mean_the_same(folder: Path, content: dict[str, Any]) -> None:
    manifest = build_manifest(write(folder, **content), format="msd")
    assert [case.id for case in manifest.training] == ["p0", "p1", "p2", "p3"]
    assert [one.name.lower() for one in manifest.channels] == ["t2", "adc"]
    assert [one.value for one in manifest.labels] == [1, 2]
    assert all(case.label == f"lab/{case.id}.nii.gz" for case in manifest.training)


def test_a_byte_order_mark_is_no_fault(folder: Path, tmp_path: Path) -> None:
    path = write(folder) / "dataset.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    manifest = build_manifest(folder)
    from segmed.manifest import write_manifest  # noqa: PLC0415 - beside its use

    written = write_manifest(manifest, tmp_path / "m.json")
    written.write_bytes(b"\xef\xbb\xbf" + written.read_bytes())
    assert read_manifest(written).training == manifest.training


def test_absolute_paths_and_other_endings_find_their_files(folder: Path) -> None:
    (folder / "lab/p0.nii.gz").unlink()
    nib.save(nib.Nifti1Image(label_of(), np.eye(4)), folder / "lab/p0.nii")
    listed = rows()
    listed[1]["label"] = str(folder / "lab/p1.nii.gz")
    listed[2]["image"] = [name.replace("/", "\\") for name in listed[2]["image"]]
    manifest = build_manifest(write(folder, training=listed))
    assert [case.label for case in manifest.training][:2] == ["lab/p0.nii", "lab/p1.nii.gz"]
    assert manifest.training[2].image == ("img/p2_t2.nii.gz", "img/p2_adc.nii.gz")
    assert len(manifest.remarks) == 1
    assert "p0.nii is taken for it" in manifest.remarks[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"training": [[rows()[0]]]}, r"training\[0\] is a list, expected an object"),
        ({"training": "imagesTr"}, "'training' is text, expected a list"),
        ({"training": [7]}, r"training\[0\] is a number"),
        ({"training": rows(image=5)}, "image is 5, expected a file name"),
        ({"training": rows(image=[["a", "b"]])}, "expected a file name or a list"),
        ({"training": rows(image=None)}, r"training\[0\] has no image; its keys"),
        ({"training": rows(label=None)}, r"training\[0\] has no label"),
        ({"training": rows(label="lab/none.nii.gz")}, "none.nii.gz, which does not exist"),
        ({"training": []}, "lists no training cases"),
        ({"modality": {"0": "T2"}}, r"has 1 channels \(T2\), .* contains 2"),
        ({"modality": {"0": "T2", "1": "ADC", "2": "DWI"}}, "contains 2: list a file for each"),
        ({"modality": {"1": "T2", "2": "ADC"}}, "expected 0 to 1"),
        ({"modality": {"T2": 0, "ADC": 1}}, "has the keys"),
        ({"modality": 3}, "'modality' is a number"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "have one value 1"),
        ({"labels": {"background": 0, "a": True}}, "label 'a' has the value True"),
        ({"labels": {"background": 0, "whole": [1, None]}}, r"'whole' has the values \[1, None\]"),
        (
            {"labels": {"background": 0, "whole": [1, 2]}, "regions_class_order": "1"},
            "'regions_class_order' is text, expected a list",
        ),
        ({"labels": {"0": "background"}}, "names no label besides background"),
        ({"labels": {"0": "background", "70000": "a"}}, "70000 is too large"),
        ({"labels": "PZ"}, "'labels' is text"),
        ({"Labels": LABELS}, "one key in upper and lower case"),
        ({"labels": {"0": "background", "1": ["a"]}}, "expected a number"),
    ],
)
def test_malformed_lists_are_one_line(folder: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=message) as caught:
        build_manifest(write(folder, **content), format="msd")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "not a JSON object but a list"),
        ("null", "not a JSON object but nothing"),
        ('{"training": NaN}', "NaN is not a JSON number"),
        ('{"labels": {"1": "a", "1": "b"}}', "key '1' occurs twice"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
    ],
)
def test_no_json_is_one_line(folder: Path, text: str, message: str) -> None:
    (folder / "dataset.json").write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError, match=message) as caught:
        build_manifest(folder)
    assert "\n" not in str(caught.value)
    (folder / "m.json").write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError):
        read_manifest(folder / "m.json")


def test_four_dimensional_files_need_the_named_number_of_volumes(folder: Path) -> None:
    for case in range(4):
        parts = [
            nib.load(folder / f"img/p{case}_{one}.nii.gz").get_fdata() for one in ("t2", "adc")
        ]
        volumes = np.stack(parts, -1).astype(np.float32)
        nib.save(nib.Nifti1Image(volumes, np.eye(4)), folder / f"img/p{case}.nii.gz")
    listed = [{**row, "image": f"img/p{n}.nii.gz"} for n, row in enumerate(rows())]
    manifest = build_manifest(write(folder, training=listed))
    assert check_manifest(manifest) == []
    with pytest.raises(ManifestError, match=r"has 3 channels .* contains 2"):
        build_manifest(write(folder, training=listed, modality=["T2", "ADC", "DWI"]))
    with pytest.raises(ManifestError, match=r"has 1 channels \(T2\)"):
        build_manifest(write(folder, training=listed, modality={"0": "T2"}))


def test_masks_of_structures_become_one_label(folder: Path, save_nifti: SaveNifti) -> None:
    for case in range(4):
        for value, name in ((1, "core"), (2, "edema")):
            mask = (label_of() == value).astype(np.uint8) * 255
            save_nifti(folder / f"masks/p{case}_{name}.nii.gz", mask)
    listed = [
        {**row, "label": [f"masks/p{n}_core.nii.gz", f"masks/p{n}_edema.nii.gz"]}
        for n, row in enumerate(rows())
    ]
    write(folder, training=listed, labels={"0": "background", "1": "core", "2": "edema"})
    with pytest.raises(ManifestError, match="give a folder"):
        build_manifest(folder)
    manifest = build_manifest(folder, made_in=folder / "made")
    made = read_label(manifest.root / str(manifest.training[2].label))
    np.testing.assert_array_equal(made.numpy()[0], label_of())
    listed[0]["label"] = ["masks/p0_core.nii.gz", "masks/p0_core.nii.gz", "lab/p0.nii.gz"]
    with pytest.raises(ManifestError, match="shares voxels"):
        build_manifest(write(folder, training=listed), made_in=folder / "made")


def test_stated_folds_are_kept_unless_folds_are_asked_for(folder: Path) -> None:
    listed = [{**row, "fold": n // 2} for n, row in enumerate(rows())]
    write(folder, training=listed)
    manifest = build_manifest(folder)
    assert [case.fold for case in manifest.training] == [0, 0, 1, 1]
    assert any("2 that the source states" in line for line in manifest.remarks)
    assert build_manifest(folder, num_folds=4).folds == (0, 1, 2, 3)
    assert build_manifest(write(folder), seed=1).folds == (0, 1, 2, 3)


def test_equal_file_names_in_folders_are_told_apart(tmp_path: Path, save_nifti: SaveNifti) -> None:
    listed = []
    for case in ("sub-1", "sub-2", "sub-3"):
        for name in ("T1", "FLAIR"):
            save_nifti(tmp_path / f"data/{case}/{name}.nii", seed=len(listed))
        save_nifti(tmp_path / f"data/{case}/seg.nii", label_of())
        files = [f"data/{case}/{name}.nii" for name in ("T1", "FLAIR")]
        listed.append({"image": files, "label": f"data/{case}/seg.nii"})
    manifest = build_manifest(write(tmp_path, training=listed, modality=None))
    assert [case.id for case in manifest.training] == ["sub-1", "sub-2", "sub-3"]
    assert [channel.name for channel in manifest.channels] == ["T1", "FLAIR"]
    single = [{**row, "image": row["image"][0]} for row in listed]
    manifest = build_manifest(write(tmp_path, training=single, modality=["T1"]))
    assert [case.id for case in manifest.training] == ["sub-1_T1", "sub-2_T1", "sub-3_T1"]
