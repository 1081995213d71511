"""Sets are written for nnU-Net and come back with the same structures, voxels and folds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segmed.errors import ManifestError, UsageError
from segmed.manifest import (
    LabelClass,
    Manifest,
    build_manifest,
    change_values,
    read_reference,
    write_nnunet,
)
from segmed.manifest.to_nnunet import nnunet_labels, written_lines
from segmed.structures import Channel

VALUES = (0, 10, 20, 30, 255)
REGIONS = (
    LabelClass(name="whole", value=30, region=(10, 20, 30)),
    LabelClass(name="core", value=20, region=(10, 20)),
    LabelClass(name="enhancing", value=10),
)


@pytest.fixture
def hearts(tmp_path: Path, shared_data: Callable[[str], Path]) -> Path:
    """Four hearts cut small: two volumes a 4D file, nested values with gaps, a slab left out."""
    source = shared_data("left_atrium")
    for number, path in enumerate(sorted((source / "labelsTr").glob("*.nii.gz"))[:4]):
        image = nib.load(source / "imagesTr" / path.name)
        voxels = np.asarray(image.dataobj)[40:140:5, 30:110:5, 10:80:5].astype(np.int16)
        label = np.digitize(voxels, np.quantile(voxels, (0.5, 0.7, 0.9)))
        label = np.asarray(VALUES)[[0, 3, 2, 1]][label].astype(np.uint8)
        label[:, :, -2:] = 255
        four = np.stack([voxels, voxels.max() - voxels], axis=-1)
        for kind, array in (("imagesTr", four), ("labelsTr", label)):
            place = tmp_path / "set" / kind / f"la_{number}.nii.gz"
            place.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, image.affine), place)
    rows = [
        {"image": f"imagesTr/la_{n}.nii.gz", "label": f"labelsTr/la_{n}.nii.gz"} for n in range(4)
    ]
    labels = {"0": "background", "10": "enhancing", "20": "core", "30": "whole", "255": "ignore"}
    content = {"name": "hearts", "modality": {"0": "T1", "1": "T2"}, "labels": labels}
    (tmp_path / "set/dataset.json").write_text(
        json.dumps({**content, "training": rows[:3]}), encoding="utf-8"
    )
    return tmp_path / "set"


@pytest.fixture
def manifest(hearts: Path) -> Manifest:
    built = build_manifest(hearts, num_folds=3)
    return built.model_copy(update={"labels": REGIONS, "stored_labels": ()})


def test_regions_and_ignored_voxels_come_back(tmp_path: Path, manifest: Manifest) -> None:
    folder = write_nnunet(manifest, tmp_path / "Dataset007_hearts")
    content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert content["labels"] == {
        "background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4
    }  # fmt: skip
    assert content["regions_class_order"] == [1, 2, 3]
    assert content["channel_names"] == {"0": "T1", "1": "T2"}
    again = build_manifest(folder)
    assert [one.contract for one in again.labels] == [
        ("whole", 1, (1, 2, 3)), ("core", 2, (2, 3)), ("enhancing", 3, ())
    ]  # fmt: skip
    assert again.ignore_value == 4
    number_of = {0: 0, 30: 1, 20: 2, 10: 3, 255: 4}
    for before, after in zip(manifest.training, again.training, strict=True):
        assert after.id == before.id
        (old, old_label), (new, new_label) = manifest.read(before), again.read(after)
        np.testing.assert_array_equal(new.numpy(), old.numpy())
        np.testing.assert_allclose(new.affine, old.affine)
        assert old_label is not None
        assert new_label is not None
        expected = np.vectorize(number_of.__getitem__)(old_label.numpy())
        np.testing.assert_array_equal(new_label.numpy(), expected)
    splits = json.loads((folder / "splits_final.json").read_text(encoding="utf-8"))
    for fold, split in enumerate(splits):
        inside, held_out = manifest.split(fold)
        assert split == {"train": [c.id for c in inside], "val": [c.id for c in held_out]}
    assert "renumbered" in written_lines(manifest, folder)[0]


def test_files_that_nnunet_reads_are_linked(tmp_path: Path, manifest: Manifest) -> None:
    first = write_nnunet(manifest, tmp_path / "first")
    again = build_manifest(first)
    second = write_nnunet(again, tmp_path / "second")
    for path in sorted(first.rglob("*.nii.gz")):
        assert path.samefile(second / path.relative_to(first))
    assert nnunet_labels(again).is_identity
    plain = tuple(one.model_copy(update={"region": ()}) for one in again.labels[:2])
    merged = again.model_copy(update={"labels": plain})
    with pytest.raises(ManifestError, match="has the value 3, which is not a label"):
        write_nnunet(merged, tmp_path / "third")
    assert not (tmp_path / "third").exists()
    with pytest.raises(UsageError, match="exists: name a new folder"):
        write_nnunet(again, first)


def test_merged_structures_are_written_as_they_are_meant(tmp_path: Path, hearts: Path) -> None:
    manifest = change_values(
        build_manifest(hearts, num_folds=3), merge={"10,20": "inner"}, drop="30"
    )
    ct = (Channel(name="late", modality="CT"), manifest.channels[1])
    folder = write_nnunet(manifest.model_copy(update={"channels": ct}), tmp_path / "merged")
    content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert content["labels"] == {"background": 0, "inner": 1, "ignore": 2}
    assert content["channel_names"] == {"0": "CT", "1": "T2"}  # nnU-Net scales by this name
    again = build_manifest(folder)
    path = again.label_path(again.training[0])
    before = manifest.label_path(manifest.training[0])
    assert path is not None
    assert before is not None
    meant = read_reference(manifest, before).numpy()
    found = read_reference(again, path).numpy()
    np.testing.assert_array_equal(found > 0, meant > 0)
    assert set(np.unique(found)) == {0, 1, 2}


def test_rasters_are_refused_by_name(tmp_path: Path, sample_pictures: Path) -> None:
    manifest = build_manifest(sample_pictures)
    with pytest.raises(ManifestError, match="rasters are not written for nnU-Net"):
        write_nnunet(manifest, tmp_path / "out")


@pytest.fixture
def sample_pictures(tmp_path: Path, shared_data: Callable[[str], Path]) -> Path:
    source = shared_data("isbi2012")
    for kind in ("images", "labels"):
        (tmp_path / "png" / kind).mkdir(parents=True)
        for number in range(2):
            content = (source / kind / f"{number}.png").read_bytes()
            (tmp_path / "png" / kind / f"{number}.png").write_bytes(content)
    return tmp_path / "png"
