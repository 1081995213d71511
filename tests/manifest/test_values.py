"""Stray and rare label values are noted; structures are merged, dropped and named at build."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pipelines.cli.app import app
from segmed.errors import ManifestError, UsageError
from segmed.io import read_image
from segmed.manifest import (
    build_manifest,
    change_values,
    check_manifest,
    data_hash,
    read_manifest,
    read_reference,
    rename_labels,
    write_manifest,
)
from segmed.manifest.census import census_lines, count_values, rare_note
from segmed.plan.fingerprint import gather, survey
from segmed.plan.make import make_plan
from segmed.preprocessing import cache_key, cached_case

SaveNifti = Callable[..., Path]
SHAPE = (12, 11, 10)


@pytest.fixture
def cells(tmp_path: Path, save_nifti: SaveNifti) -> Path:
    """Ten cases with 126, 127 and 128; one of them has 5 voxels of 233."""
    for number in range(10):
        label = np.zeros(SHAPE, np.uint8)
        label[0:4, 0:4, 0:4], label[5:9, 0:4, 0:4], label[0:4, 5:9, 0:4] = 126, 127, 128
        if number == 3:
            label[11, 10, :5] = 233
        save_nifti(tmp_path / f"set/images/c{number}.nii.gz", label * 2.0, seed=number)
        save_nifti(tmp_path / f"set/labels/c{number}.nii.gz", label)
    rng = np.random.default_rng(0)
    for path in sorted((tmp_path / "set/images").iterdir()):
        save_nifti(path, rng.normal(size=SHAPE).astype(np.float32))
    return tmp_path / "set"


def build(cells: Path, *options: str) -> tuple[int, str]:
    out = cells.parent / "m.json"
    result = CliRunner().invoke(app, ["manifest", "build", str(cells), "-o", str(out), *options])
    return result.exit_code, result.output + str(result.exception or "")


def test_a_value_in_few_voxels_of_few_cases_is_noted_by_build_and_check(cells: Path) -> None:
    code, output = build(cells)
    assert code == 0
    assert "233: 5 voxels in 1 of 10 cases" in output
    assert "--drop-values 233" in output
    assert "4 structures called by their values (126, 127, 128, 233)" in output
    assert "--label-names 126=NAME,127=NAME,128=NAME,..." in output
    (fault,) = check_manifest(read_manifest(cells.parent / "m.json"))
    assert (fault.code, fault.severity) == ("rare_label", "note")
    assert "233: 5 voxels in 1 of 10 cases" in fault.message
    assert "126" not in fault.message


def test_values_are_merged_dropped_and_named(cells: Path) -> None:
    code, output = build(
        cells, "--merge", "127-128=axon", "--drop-values", "233", "--label-names", "126=myelin"
    )
    assert code == 0, output
    assert "rare" not in output
    manifest = read_manifest(cells.parent / "m.json")
    assert [(one.name, one.value) for one in manifest.labels] == [("myelin", 126), ("axon", 127)]
    assert check_manifest(manifest) == []
    case = next(case for case in manifest.training if case.id == "c3")
    path = manifest.label_path(case)
    assert path is not None
    found = read_reference(manifest, path, like=read_image(manifest.image_paths(case)[0]))
    counts = {value: int((found == value).sum()) for value in found.unique().tolist()}
    assert counts == {0: 12 * 11 * 10 - 192, 126: 64, 127: 128}
    share = gather(survey(manifest)).class_share
    assert share[1] == pytest.approx(2 * share[0], rel=1e-3)


def test_merged_classes_reach_training_and_key_the_cache(cells: Path) -> None:
    manifest = build_manifest(cells)
    merged = change_values(manifest, merge={"127,128": "axon"}, drop="233")
    plan = make_plan(merged)
    case = next(case for case in merged.training if case.id == "c3")
    _, label, _ = cached_case(merged, case, plan, cells.parent / "cache")
    assert label is not None
    assert torch.bincount(label.flatten().long())[1:].tolist() == [64, 128]
    dropped = change_values(manifest, merge={"127,128": "axon", "233": "dust"})
    assert cache_key(merged, case, plan) != cache_key(dropped, case, plan)
    assert data_hash(merged, merged.training) != data_hash(dropped, dropped.training)


def test_positional_names_are_for_what_merging_leaves(cells: Path) -> None:
    code, output = build(cells, "--drop-values", "label_233", "--label-names", "outer,middle,inner")
    assert code == 0, output
    manifest = read_manifest(cells.parent / "m.json")
    assert [one.name for one in manifest.labels] == ["outer", "middle", "inner"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--drop-values", "7"], "known are 126 (label_126), 127 (label_127)"),
        (["--merge", "127,300=x"], "'300'"),
        (["--merge", "127,128"], "127,128=axon"),
        (["--merge", "127=a", "--drop-values", "127"], "named twice"),
        (["--drop-values", "1-250"], "leaves no structure"),
        (["--label-names", "99=x"], "99=x"),
        (["--drop-values", "233", "--label-names", "a,b"], "2 label names for 3 label values"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(
    cells: Path, options: list[str], said: str
) -> None:
    code, output = build(cells, *options)
    assert code != 0
    assert said in output
    assert not (cells.parent / "m.json").exists()


def test_values_beyond_those_that_are_stated_are_said_with_their_voxels(
    cells: Path,
) -> None:
    description = {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "a": 126, "b": 127, "nowhere": 9},
        "file_ending": ".nii.gz",
    }
    for old, new in (("images", "imagesTr"), ("labels", "labelsTr")):
        (cells / old).rename(cells / new)
    for path in sorted((cells / "imagesTr").iterdir()):
        path.rename(path.with_name(path.name.replace(".nii", "_0000.nii")))
    (cells / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    code, output = build(cells)
    assert code == 0
    assert "unknown: 128: 640 voxels in 10 of 10 cases; 233: 5 voxels in 1 of 10 cases" in output
    assert "absent: nowhere" in output
    found = check_manifest(read_manifest(cells.parent / "m.json"))
    stray = next(fault for fault in found if fault.case_id == "c3")
    assert stray.code == "stray_value"
    assert "128 (64 voxels), 233 (5 voxels)" in stray.message


def test_an_unused_field_is_not_written_and_a_wrong_one_is_refused(cells: Path) -> None:
    manifest = build_manifest(cells)
    path = write_manifest(manifest, cells / "m.json")
    assert "stored_labels" not in path.read_text(encoding="utf-8")
    changed = write_manifest(change_values(manifest, drop="233"), cells / "m.json")
    content = json.loads(changed.read_text(encoding="utf-8"))
    content["stored_labels"][0]["becomes"] = 5
    changed.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ManifestError, match="become 5, which is not a label"):
        read_manifest(changed)


def test_renaming_needs_a_name_for_each(cells: Path) -> None:
    manifest = build_manifest(cells)
    with pytest.raises(UsageError, match="1 label names for 4"):
        rename_labels(manifest, ["a"])


def test_ignore_is_no_structure(cells: Path) -> None:
    manifest = build_manifest(cells, label_names=["a", "b", "c", "d"])
    for ignored in (
        rename_labels(manifest, ["233=Ignore"]),
        build_manifest(cells, label_names=["a", "b", "c", "ignore_label"]),
    ):
        assert ignored.ignore_value == 233
        assert [label.name for label in ignored.labels] == ["a", "b", "c"]
        assert "not annotated" in ignored.remarks[-1]
        path = write_manifest(ignored, cells / "m.json")
        assert read_manifest(path).ignore_value == 233
    content = json.loads(path.read_text(encoding="utf-8"))
    content["labels"].append({"name": "Ignore", "value": 234})
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(
        ManifestError, match=r"'Ignore' \(value 234\) marks .*\"ignore_value\": 234"
    ):
        read_manifest(path)
    doubtful, output = build(cells, "--label-names", "a,b,c,void")
    assert doubtful == 0
    assert "unsure: label 'void'" in output


def test_an_atlas_of_many_structures_is_no_image(tmp_path: Path, save_nifti: SaveNifti) -> None:
    blocks = np.arange(8**3).reshape(8, 8, 8).repeat(4, 0).repeat(4, 1).repeat(4, 2)
    for number in range(3):
        image = np.random.default_rng(number).normal(size=blocks.shape).astype(np.float32)
        save_nifti(tmp_path / f"set/images/c{number}.nii.gz", image)
        save_nifti(tmp_path / f"set/labels/c{number}.nii.gz", blocks.astype(np.int16))
    manifest = build_manifest(tmp_path / "set", num_folds=2)
    assert len(manifest.labels) == 511


def test_values_beyond_16_bits_are_refused_in_one_line(
    tmp_path: Path, save_nifti: SaveNifti
) -> None:
    label = np.zeros(SHAPE, np.int32)
    label[2:4, 2:4, 2:4] = 70000
    for number in range(2):
        save_nifti(tmp_path / f"set/images/c{number}.nii.gz", label + np.float32(number))
        save_nifti(tmp_path / f"set/labels/c{number}.nii.gz", label)
    with pytest.raises(ManifestError, match="contain the value 70000; label values are at most"):
        build_manifest(tmp_path / "set", num_folds=2)


def test_few_voxels_are_noted_where_half_of_the_cases_lack_them() -> None:
    names = {1: "cell", 7: "speck"}
    found = [{0: 90, 1: 50, 7: 3}, {0: 90, 1: 50}, {0: 90, 1: 50}]
    note = rare_note(count_values(names, found), 3)
    assert note.startswith("7 (speck): 3 voxels in 1 of 3 cases:")
    assert rare_note(count_values(names, [{1: 50, 7: 3}, {1: 50, 7: 3}, {1: 50}]), 3) == ""
    assert rare_note(count_values(names, [{1: 50, 7: 40}, {1: 50}, {1: 50}]), 3) == ""


def test_every_value_but_the_background_is_counted() -> None:
    names = {1: "cell", 2: "nucleus"}
    counts = count_values(names, [{0: 90, 1: 4}, {0: 80, 1: 2, 2: 7, 9: 1}])
    assert [count.line(2) for count in counts] == [
        "1 (cell): 6 voxels in 2 of 2 cases",
        "2 (nucleus): 7 voxels in 1 of 2 cases",
        "9: 1 voxel in 1 of 2 cases",
    ]


def test_a_label_that_cannot_be_read_is_no_absent_structure(cells: Path) -> None:
    assert build(cells)[0] == 0
    manifest = read_manifest(cells.parent / "m.json")
    label = manifest.label_path(manifest.training[0])
    assert label is not None
    label.write_bytes(label.read_bytes()[:60])
    [line] = [line for line in census_lines(manifest) if line.startswith("unread")]
    assert line.startswith(f"unread: 1 label files, such as {label.name}")
