"""Manifests are JSON that says what is wrong with it, and that MONAI reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from monai.data import load_decathlon_datalist

from segmed.errors import ManifestError
from segmed.manifest import Manifest, read_manifest, rebase, write_manifest


def row(case_id: str, **more: Any) -> dict[str, Any]:
    return {"id": case_id, "group": case_id, "image": f"{case_id}.nii", "fold": 0, **more}


def content(**more: Any) -> dict[str, Any]:
    return {
        "name": "tried",
        "labels": [{"name": "spot", "value": 1}],
        "channels": [{"name": "T1", "modality": "MR"}],
        "training": [row("a"), row("b", fold=1)],
        **more,
    }


def write(folder: Path, value: Any) -> Path:
    path = folder / "m.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, content()))
    again = read_manifest(write_manifest(manifest, tmp_path / "sub" / "n.json"))
    assert again.image_paths(again.training[0])[0].resolve() == tmp_path / "a.nii"
    assert rebase(again, tmp_path) == manifest


def test_writing_leaves_nothing_else_behind(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, content()))
    write_manifest(manifest, tmp_path / "n.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.json", "n.json"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "cannot be read as JSON"),
        ([1], "is not a JSON object but a list"),
        (content(schema_version=9), "schema version 9; this segmed reads 1"),
        (content(labels={"0": "background"}), "Decathlon data list"),
        (content(colour="red"), "colour: Extra inputs"),
        (content(labels=[]), "labels: "),
        (content(training=[row("a"), row("a")]), "'a' occurs twice"),
        (content(training=[row("a/b")]), r"training\.0\.id"),
        (content(training=[row("a", group="p"), row("b", group="p", fold=1)]), "'p' is split"),
        (content(test=[{"id": "t", "group": "a", "image": "t.nii"}]), "'a' is split"),
        (content(training=[row("a", image=["x", "y"])]), "2 image files for 1 channels"),
        (
            content(labels=[{"name": "x", "value": 1}, {"name": "y", "value": 1}]),
            r"\[1, 1\] repeat",
        ),
    ],
)
def test_a_bad_manifest_says_what_is_wrong(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(ManifestError, match=message) as caught:
        read_manifest(write(tmp_path, value))
    assert "\n" not in str(caught.value)


def test_a_missing_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="segmed manifest build"):
        read_manifest(tmp_path / "none.json")


def test_monai_reads_the_same_cases(sample_manifest_path: Path) -> None:
    manifest = read_manifest(sample_manifest_path)
    for key, cases in (("training", manifest.training), ("test", manifest.test)):
        rows = load_decathlon_datalist(str(sample_manifest_path), True, key)
        assert [one["image"] for one in rows] == [
            str(manifest.image_paths(case)[0]) for case in cases
        ]
        assert [one["label"] for one in rows] == [str(manifest.label_path(case)) for case in cases]
        assert [one.get("fold") for one in rows] == [case.fold for case in cases]


def test_monai_reads_several_channels(tmp_path: Path) -> None:
    channels = [{"name": "T1"}, {"name": "T2"}]
    rows = [row("a", image=["a0.nii", "a1.nii"], label="a.nii")]
    manifest = read_manifest(write(tmp_path, content(channels=channels, training=rows)))
    path = write_manifest(manifest, tmp_path / "n.json")
    (loaded,) = load_decathlon_datalist(str(path), True, "training")
    assert loaded["image"] == [str(tmp_path / "a0.nii"), str(tmp_path / "a1.nii")]


def test_split_holds_one_fold_out(sample_manifest_path: Path) -> None:
    manifest: Manifest = read_manifest(sample_manifest_path)
    inside, held_out = manifest.split(2)
    assert {case.fold for case in held_out} == {2}
    assert len(inside) + len(held_out) == 34


def test_one_file_may_hold_all_channels(tmp_path: Path) -> None:
    colours = [{"name": name} for name in ("red", "green", "blue")]
    assert len(read_manifest(write(tmp_path, content(channels=colours))).channels) == 3
