"""Image sets whose labels are stored with other axes than their images."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from small_sets import stored_along

from segmed.errors import GeometryError, ManifestError
from segmed.geometry import same_grid
from segmed.io import grid_of, read_image, read_label
from segmed.manifest import Manifest, check_manifest, read_manifest, write_nnunet
from segmed.manifest.made_labels import LabelMaker
from segmed.plan import fingerprint
from segmed.transforms.reading import ReadCase

CODES = ("LPS", "PSL", "ASL", "RAS")


@pytest.fixture
def as_listed(sample_manifest_path: Path, tmp_path: Path) -> Manifest:
    """Four real cases in a folder of their own."""
    manifest = read_manifest(sample_manifest_path)
    cases = tuple(case.model_copy(update={"sha256": {}}) for case in manifest.training[:4])
    for case in cases:
        for name in (*case.image, str(case.label)):
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(manifest.root / name, tmp_path / "set" / name)
    return manifest.model_copy(
        update={"training": cases, "test": (), "root": tmp_path / "set", "source_folds": ()}
    )


def with_turned_labels(manifest: Manifest, root: Path, *, shift_voxels: float = 0.0) -> Manifest:
    """The set in another folder, each label stored with the axes of `CODES`."""
    shutil.copytree(manifest.root, root)
    for case, codes in zip(manifest.training, CODES, strict=True):
        stored = nib.load(root / str(case.label))
        affine = stored.affine.copy()
        affine[:3, 3] += shift_voxels * affine[:3, 1]
        values = np.asarray(stored.dataobj).astype(np.uint8)
        turned = stored_along(nib.Nifti1Image(values, affine), codes)
        nib.save(turned, root / str(case.label))
    return manifest.model_copy(update={"root": root})


def told(manifest: Manifest) -> list[tuple[str, str, str]]:
    return [(one.case_id, one.code, one.severity) for one in check_manifest(manifest)]


def test_turned_labels_are_noted_and_are_no_fault(as_listed: Manifest, tmp_path: Path) -> None:
    manifest = with_turned_labels(as_listed, tmp_path / "turned")
    expected = {(case.id, "turned_label", "note") for case in manifest.training[:3]}
    assert set(told(manifest)) - set(told(as_listed)) == expected
    [line] = [
        one.message
        for one in check_manifest(manifest)
        if (one.case_id, one.code) == (manifest.training[2].id, "turned_label")
    ]
    assert "is stored as ASL, the image as RAS" in line


def test_turned_labels_are_the_same_labels(as_listed: Manifest, tmp_path: Path) -> None:
    manifest = with_turned_labels(as_listed, tmp_path / "turned")
    for case in manifest.training:
        image, label = manifest.read(case)
        assert torch.equal(label.as_tensor(), as_listed.read(case)[1].as_tensor())
        assert same_grid(grid_of(image), grid_of(label))
    facts, same = (fingerprint.survey(one) for one in (manifest, as_listed))
    for one, other in zip(facts, same, strict=True):
        assert one.extents == other.extents
        assert one.class_voxels == other.class_voxels
        np.testing.assert_array_equal(one.foreground, other.foreground)


def test_a_label_half_a_voxel_aside_is_refused_in_any_order(
    as_listed: Manifest, tmp_path: Path
) -> None:
    manifest = with_turned_labels(as_listed, tmp_path / "turned", shift_voxels=0.5)
    errors = {one for one in told(manifest) if one[2] == "error"}
    assert errors == {(case.id, "other_grid", "error") for case in manifest.training}
    assert not [one for one in told(manifest) if one[1] == "turned_label"]
    for case in manifest.training:
        with pytest.raises(ManifestError, match=rf"{case.id}: the image and its label are on diff"):
            manifest.read(case)
    with pytest.raises(ManifestError, match=r"corners up to 0\.5 mm"):  # of the image's shape
        fingerprint.survey(manifest.model_copy(update={"training": manifest.training[3:]}))
    last = manifest.training[3]
    row = {"image": manifest.image_paths(last), "label": manifest.label_path(last)}
    with pytest.raises(GeometryError):
        ReadCase()(row)


def test_labels_for_nnunet_have_the_axes_of_their_images(
    as_listed: Manifest, tmp_path: Path
) -> None:
    manifest = with_turned_labels(as_listed, tmp_path / "turned")
    written = write_nnunet(manifest, tmp_path / "Dataset007_Turned")
    folder = written if isinstance(written, Path) else tmp_path / "Dataset007_Turned"
    for case in manifest.training:
        image = read_image(folder / "imagesTr" / f"{case.id}_0000.nii.gz")
        label = read_label(folder / "labelsTr" / f"{case.id}.nii.gz")
        assert same_grid(grid_of(image), grid_of(label))
        expected = as_listed.read(case)[1]
        np.testing.assert_array_equal(np.asarray(label), np.asarray(expected))


@pytest.mark.parametrize("codes", CODES)
def test_masks_of_one_case_may_have_axes_of_their_own(tmp_path: Path, codes: str) -> None:
    values = np.zeros((2, 5, 6, 7), np.uint8)
    values[0, 1, 2:4, 3] = 1
    values[1, 3, 0, 2:6] = 1
    affine = np.diag([1.0, 1.5, 3.0, 1.0])
    paths = [tmp_path / "a.nii", tmp_path / "b.nii"]
    nib.save(nib.Nifti1Image(values[0], affine), paths[0])
    nib.save(stored_along(nib.Nifti1Image(values[1], affine), codes), paths[1])
    made = LabelMaker(tmp_path / "made").combined("case", paths, "instances")
    np.testing.assert_array_equal(read_label(made).numpy()[0], values[0] + 2 * values[1])
    affine[0, 3] = 0.5
    nib.save(stored_along(nib.Nifti1Image(values[1], affine), codes), paths[1])
    with pytest.raises(ManifestError, match=r"a\.nii and b\.nii are on different grids"):
        LabelMaker(tmp_path / "made").combined("case", paths, "instances")
