"""The audit names every fault of a set that was made dirty on purpose."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segmed.errors import ManifestError
from segmed.manifest import (
    Manifest,
    ManifestFault,
    build_manifest,
    check_manifest,
    clean_manifest,
    read_manifest,
    write_clean,
)
from segmed.manifest.content import with_digests

SaveNifti = Callable[..., Path]


def rehashed(manifest: Manifest) -> Manifest:
    """The manifest after its files were changed on purpose, so that only the fault shows."""
    return with_digests(manifest)


def codes(faults: list[ManifestFault]) -> set[tuple[str, str, str]]:
    return {(one.case_id, one.code, one.severity) for one in faults}


@pytest.fixture
def sample_copy(sample_manifest_path: Path, tmp_path: Path) -> Manifest:
    """Twelve cases of the bundled sample in a folder that may be spoiled."""
    manifest = read_manifest(sample_manifest_path)
    manifest = manifest.model_copy(
        update={"training": manifest.training[:10], "test": manifest.test[:2]}
    )
    for case in (*manifest.training, *manifest.test):
        for name in case.sha256:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(manifest.root / name, tmp_path / name)
    return manifest.model_copy(update={"root": tmp_path})


def change(path: Path, edit: Callable[[np.ndarray], np.ndarray], dtype: type = np.float32) -> None:
    image = nib.load(path)
    array = edit(np.asarray(image.dataobj)).astype(dtype)
    nib.save(nib.Nifti1Image(array, image.affine), path)


def test_a_dirtied_copy_has_each_fault_named(sample_copy: Manifest) -> None:
    root, cases = sample_copy.root, sample_copy.training
    (root / str(cases[0].label)).unlink()
    change(root / str(cases[1].label), lambda label: label[:-1], np.uint8)
    shifted = nib.load(root / str(cases[2].label))
    affine = shifted.affine.copy()
    affine[2, 3] += 4
    nib.save(nib.Nifti1Image(np.asarray(shifted.dataobj), affine), root / str(cases[2].label))
    change(root / str(cases[3].label), lambda label: np.where(label == 1, 0.99999994, label))
    shutil.copy(root / cases[5].image[0], root / cases[4].image[0])
    shutil.copy(root / str(cases[5].label), root / str(cases[4].label))
    whole = (root / cases[6].image[0]).read_bytes()
    (root / cases[6].image[0]).write_bytes(whole[: len(whole) // 2])
    change(root / str(cases[7].label), lambda label: np.where(label == 2, 7, label), np.uint8)
    change(root / str(cases[8].label), lambda label: label * 0.5)
    change(root / str(cases[9].label), np.zeros_like, np.uint8)
    fresh = tuple(case.model_copy(update={"sha256": {}}) for case in cases)
    faults = check_manifest(sample_copy.model_copy(update={"training": fresh}))
    assert {one for one in codes(faults) if "outlier" not in one[1]} == {
        (cases[0].id, "missing_file", "error"),
        (cases[1].id, "other_grid", "error"),
        (cases[2].id, "other_grid", "error"),
        (cases[3].id, "float_label", "note"),
        (cases[5].id, "duplicate", "error"),
        (cases[6].id, "truncated", "error"),
        (cases[7].id, "stray_value", "error"),
        (cases[8].id, "not_integer", "error"),
        (cases[9].id, "empty_label", "note"),
    }
    told = {one.case_id: one.message for one in faults}
    assert "contains 7 (1774 voxels)" in told[cases[7].id]
    assert "rounded by up to 6.0e-08" in told[cases[3].id]
    assert "4 mm apart" in told[cases[2].id]
    assert cases[4].id in told[cases[5].id]
    assert all("\n" not in one.message for one in faults)


def test_a_changed_file_has_another_hash(sample_copy: Manifest) -> None:
    case = sample_copy.training[3]
    path = sample_copy.root / case.image[0]
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1))
    faults = [one for one in check_manifest(sample_copy) if one.severity == "error"]
    assert codes(faults) == {(case.id, "wrong_hash", "error")}


def test_a_copy_is_found_though_it_is_zipped_otherwise(sample_copy: Manifest) -> None:
    first, second = sample_copy.training[:2]
    voxels = gzip.decompress((sample_copy.root / first.image[0]).read_bytes())
    (sample_copy.root / second.image[0]).write_bytes(gzip.compress(voxels, 2))
    assert (second.id, "duplicate", "error") in codes(check_manifest(rehashed(sample_copy)))


def test_a_label_with_a_scale_factor_is_rounded_and_reported(
    paired_set: Path,
) -> None:
    path = paired_set / "labels" / "p1_s0.nii.gz"
    image = nib.load(path)
    scaled = nib.Nifti1Image(3 * np.asarray(image.dataobj).astype(np.int16), image.affine)
    scaled.header.set_slope_inter(1 / 3, 0)
    nib.save(scaled, path)
    faults = check_manifest(build_manifest(paired_set))
    assert codes(faults) == {("p1_s0", "float_label", "note")}


def test_missing_labels_channels_and_flat_images_are_errors(
    paired_set: Path, save_nifti: SaveNifti
) -> None:
    built = build_manifest(paired_set)
    save_nifti(paired_set / "images" / "p0_s1.nii.gz", np.full((5, 6, 4), 3.0, dtype=np.float32))
    bare = built.training[0].model_copy(update={"label": None})
    manifest = rehashed(built.model_copy(update={"training": (bare, *built.training[1:])}))
    errors = {one for one in codes(check_manifest(manifest)) if one[2] == "error"}
    assert errors == {("p0_s0", "missing_label", "error"), ("p0_s1", "constant_image", "error")}
    two = manifest.model_copy(update={"channels": manifest.channels * 2})
    assert ("p3_s1", "channel_count", "error") in codes(check_manifest(two))


def test_outliers_of_spacing_and_intensity_are_notes(
    paired_set: Path, save_nifti: SaveNifti
) -> None:
    label = np.ones((5, 6, 4), dtype=np.uint8)
    save_nifti(paired_set / "images" / "p2_s0.nii.gz", spacing_mm=(1, 1, 5), seed=20)
    save_nifti(paired_set / "labels" / "p2_s0.nii.gz", label, spacing_mm=(1, 1, 5))
    bright = np.random.default_rng(9).normal(5000, 20, (5, 6, 4)).astype(np.float32)
    save_nifti(paired_set / "images" / "p3_s0.nii.gz", bright)
    faults = check_manifest(build_manifest(paired_set))
    assert codes(faults) == {
        ("p2_s0", "spacing_outlier", "note"),
        ("p3_s0", "intensity_outlier", "note"),
    }


def test_a_structure_that_never_occurs_is_a_note_on_the_set(paired_set: Path) -> None:
    manifest = build_manifest(paired_set)
    extra = manifest.labels[0].model_copy(update={"name": "ghost", "value": 9})
    faults = check_manifest(manifest.model_copy(update={"labels": (*manifest.labels, extra)}))
    assert codes(faults) == {("", "absent_label", "note")}


def test_progress_counts_every_case_and_workers_change_nothing(paired_set: Path) -> None:
    manifest = build_manifest(paired_set)
    (paired_set / "labels" / "p1_s1.nii.gz").unlink()
    seen: list[tuple[int, int]] = []
    faults = check_manifest(manifest, workers=4, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(done, 8) for done in range(1, 9)]
    assert faults == check_manifest(manifest, workers=1)


def test_the_clean_manifest_drops_errors_and_keeps_the_reasons(
    paired_set: Path, tmp_path: Path
) -> None:
    manifest = build_manifest(paired_set)
    (paired_set / "labels" / "p1_s1.nii.gz").unlink()
    (paired_set / "images" / "p2_s0.nii.gz").write_bytes(b"")
    dropped = write_clean(manifest, check_manifest(manifest), tmp_path / "clean.json")
    assert set(dropped) == {"p1_s1", "p2_s0"}
    clean = read_manifest(tmp_path / "clean.json")
    assert len(clean.training) == 6
    assert {case.id: case.fold for case in clean.training}.items() <= {
        case.id: case.fold for case in manifest.training
    }.items()
    assert [one for one in check_manifest(clean) if one.severity == "error"] == []
    kept = json.loads((tmp_path / "clean.dropped.json").read_text(encoding="utf-8"))
    assert kept["p1_s1"][0].startswith("missing_file: labels/p1_s1.nii.gz does not exist")


def test_a_set_without_a_fit_case_is_refused(paired_set: Path) -> None:
    manifest = build_manifest(paired_set)
    shutil.rmtree(paired_set / "labels")
    with pytest.raises(ManifestError, match="all 8 training cases have errors"):
        clean_manifest(manifest, check_manifest(manifest))
