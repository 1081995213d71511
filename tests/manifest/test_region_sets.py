"""Regions and ignored voxels from a source to the manifest and to the label maps read by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segmed.errors import ManifestError, UsageError
from segmed.manifest import (
    build_manifest,
    check_manifest,
    data_hash,
    ignore_values,
    make_regions,
    read_manifest,
    read_reference,
    write_manifest,
)
from segmed.manifest.regions import regions_of

SaveNifti = Callable[..., Path]

BRATS = {"whole tumour": [1, 2, 3], "tumour core": [2, 3], "enhancing": [3]}


def nested_map() -> np.ndarray:
    """Shells 1 (oedema), 2 (necrosis) and 3 (enhancing), and a corner that is not annotated."""
    label = np.zeros((9, 9, 9), np.uint8)
    for value, rim in ((1, 1), (2, 2), (3, 3)):
        label[rim:-rim, rim:-rim, rim:-rim] = value
    label[:2, :2, :2] = 7
    return label


def nnunet_folder(folder: Path, save_nifti: SaveNifti, **content: object) -> Path:
    for number in range(4):
        save_nifti(
            folder / f"imagesTr/c{number}_0000.nii.gz",
            np.random.default_rng(number).normal(size=(9, 9, 9)).astype(np.float32),
        )
        save_nifti(folder / f"labelsTr/c{number}.nii.gz", nested_map())
    description = {"channel_names": {"0": "T1"}, "file_ending": ".nii.gz", **content}
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


def contracts(manifest) -> list[tuple[str, int, tuple[int, ...]]]:
    return [label.contract for label in manifest.labels]


def test_regions_and_ignore_of_nnunet_reach_the_manifest(
    tmp_path: Path, save_nifti: SaveNifti
) -> None:
    labels = {"background": 0, **BRATS, "ignore": 7}
    folder = nnunet_folder(tmp_path, save_nifti, labels=labels, regions_class_order=[1, 2, 3])
    manifest = build_manifest(folder, num_folds=2)
    assert contracts(manifest) == [
        ("whole_tumour", 1, (1, 2, 3)),
        ("tumour_core", 2, (2, 3)),
        ("enhancing", 3, ()),
    ]
    assert manifest.ignore_value == 7
    assert [fault for fault in check_manifest(manifest) if fault.severity == "error"] == []
    assert read_manifest(write_manifest(manifest, tmp_path / "m.json")).labels == manifest.labels
    plain = manifest.model_copy(update={"ignore_value": None})
    assert data_hash(plain, plain.training) != data_hash(manifest, manifest.training)


def test_the_order_of_painting_may_follow_other_values(
    tmp_path: Path, save_nifti: SaveNifti
) -> None:
    labels = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumour": 2, "ignore": 7}
    folder = nnunet_folder(tmp_path, save_nifti, labels=labels, regions_class_order=[1, 3, 2])
    assert contracts(build_manifest(folder)) == [
        ("kidney", 1, (1, 2, 3)),
        ("masses", 3, (2, 3)),
        ("tumour", 2, ()),
    ]


def test_values_of_equal_meaning_become_one(tmp_path: Path, save_nifti: SaveNifti) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "ignore": 7}
    folder = nnunet_folder(tmp_path, save_nifti, labels=labels, regions_class_order=[1, 3])
    manifest = build_manifest(folder)
    assert contracts(manifest) == [("whole", 1, (1, 3)), ("core", 3, ())]
    path = manifest.label_path(manifest.training[0])
    assert path is not None
    found = np.asarray(read_reference(manifest, path))[0]
    expected = nested_map().astype(int)
    expected[expected == 2] = 3
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("named", "paint", "message"),
    [
        (BRATS, (3, 2, 1), "painted before it and would be lost"),
        (BRATS, (1, 2), "2 values to paint"),
        ({"a": [1, 2], "b": [2, 3]}, (), "value 2 lies in 'a' and 'b'"),
        ({"a": [1, 2], "b": [1, 2]}, (), "painted before it"),
        ({"a": [1, 2], "b": []}, (), r"region 'b' has the values \[\]"),
        ({"a": [0, 2], "b": [2]}, (), r"region 'a' has the values \[0, 2\]"),
    ],
)
def test_regions_that_one_map_cannot_show_are_refused(named, paint, message) -> None:
    with pytest.raises(ManifestError, match=message):
        regions_of(named, paint, place="here")


def test_regions_in_any_order_are_painted_from_the_largest() -> None:
    found = regions_of(dict(reversed(BRATS.items())), place="here")
    assert [label.name for label in found.labels] == list(BRATS)
    shared = regions_of({"a": [1, 2], "b": [2, 3], "both": [2]}, place="here")
    assert [label.value for label in shared.labels] == [1, 3, 2]
    assert [label.values for label in shared.labels] == [(1, 2), (2, 3), (2,)]
    covered = regions_of({"both": [1, 2], "a": [1], "b": [2]}, place="here")
    assert [label.contract for label in covered.labels] == [
        ("both", 3, (1, 2, 3)),
        ("a", 1, ()),
        ("b", 2, ()),
    ]


def test_regions_and_ignored_values_are_stated_on_any_set(
    tmp_path: Path, save_nifti: SaveNifti
) -> None:
    labels = {"background": 0, "oedema": 1, "necrosis": 2, "enhancing": 3, "odd": 7}
    folder = nnunet_folder(tmp_path, save_nifti, labels=labels)
    manifest = ignore_values(build_manifest(folder), 7)
    made = make_regions(manifest, {"core": "necrosis,enhancing", "enhancing": "3"})
    assert contracts(made) == [("core", 2, (2, 3)), ("enhancing", 3, ())]
    assert "background: oedema" in made.remarks[-1]
    path = made.label_path(made.training[0])
    assert path is not None
    assert set(np.unique(np.asarray(read_reference(made, path)))) == {0, 2, 3, 7}
    with pytest.raises(UsageError, match="--region '9': no structure"):
        make_regions(manifest, {"core": "2,9"})
    with pytest.raises(UsageError, match="belongs to the region 'core'"):
        ignore_values(made, 3)
    with pytest.raises(UsageError, match="from 1 to 65535"):
        ignore_values(manifest, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ignore_value": 2}, "value 2 of unannotated voxels is that of a label"),
        ({"region": [2, 9]}, "value 9, which is not a label's own"),
        ({"region": [3]}, "does not contain its own value"),
    ],
)
def test_faults_of_a_manifest_written_by_hand_are_named(
    tmp_path: Path, save_nifti: SaveNifti, change: dict[str, object], message: str
) -> None:
    labels = {"background": 0, **BRATS, "ignore": 7}
    folder = nnunet_folder(tmp_path, save_nifti, labels=labels)
    path = write_manifest(build_manifest(folder), tmp_path / "m.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    if "region" in change:
        content["labels"][1]["region"] = change["region"]
    else:
        content.update(change)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ManifestError, match=message):
        read_manifest(path)
