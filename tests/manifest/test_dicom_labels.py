"""DICOM series with structure sets, NIfTI files or mask series as labels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch

from segmed.errors import GeometryError, ImageError, ManifestError
from segmed.geometry import Grid
from segmed.io import grid_of, read_image, read_label, write_label
from segmed.io.dicom.rtstruct import write_rtstruct
from segmed.io.dicom.rtstruct_read import Region, label_of_regions, read_regions
from segmed.manifest import build_manifest, check_manifest
from segmed.structures import LabelClass

Shared = Callable[[str], Path]
HEAD, TAIL = LabelClass(name="head", value=3), LabelClass(name="tail", value=1)


def drawn(shape: tuple[int, ...]) -> torch.Tensor:
    """A ring with an island in its hole, one voxel alone, and a second structure."""
    label = torch.zeros(shape, dtype=torch.uint8)
    label[4:14, 5:15, 4:7] = 3
    label[6:12, 7:13, 4:7] = 0
    label[8:10, 9:11, 4:7] = 3
    label[20, 3, 5] = 3
    label[20:23, 20:26, 8] = 1
    return label


@pytest.fixture
def studies(shared_data: Shared, tmp_path: Path) -> list[Path]:
    """Two real DICOM series, each in the folder of its study."""
    sources = sorted(shared_data("hippocampus_dicom").glob("study*"))[:2]
    return [
        shutil.copytree(source, tmp_path / f"tree/{number}/series")
        for number, source in enumerate(sources)
    ]


def add_rtstruct(series: Path) -> torch.Tensor:
    image = read_image(series)
    label = drawn(tuple(image.shape[1:]))
    (series.parent / "rt").mkdir()
    write_rtstruct(
        series.parent / "rt/rt.dcm", label, like=image, labels=(HEAD, TAIL),
        model_name="hand", model_version="1",
    )  # fmt: skip
    return label


def test_structure_sets_give_the_label_map_back(studies: list[Path], tmp_path: Path) -> None:
    labels = [add_rtstruct(series) for series in studies]
    manifest = build_manifest(tmp_path / "tree", made_in=tmp_path / "made")
    assert [(one.name, one.value) for one in manifest.labels] == [("head", 1), ("tail", 2)]
    made = [read_label(manifest.root / str(case.label)).numpy()[0] for case in manifest.training]
    expected = [np.select([one == 3, one == 1], [1, 2], 0) for one in labels]
    for one in made:
        assert any(one.shape == other.shape and (one == other).all() for other in expected)
    assert check_manifest(manifest) == []
    chosen = build_manifest(tmp_path / "tree", made_in=tmp_path / "made", label_names=["tail"])
    assert [(one.name, one.value) for one in chosen.labels] == [("tail", 1)]
    with pytest.raises(ManifestError, match="no structure set has a region 'body'"):
        build_manifest(tmp_path / "tree", made_in=tmp_path / "made", label_names=["body"])


def test_structure_sets_of_another_space_are_refused(studies: list[Path], tmp_path: Path) -> None:
    for series in studies:
        add_rtstruct(series)
    path = studies[1].parent / "rt/rt.dcm"
    moved = pydicom.dcmread(path)
    for item in moved.StructureSetROISequence:
        item.ReferencedFrameOfReferenceUID = "1.2.3"
    moved.save_as(path)
    with pytest.raises(ManifestError, match="another frame of reference"):
        build_manifest(tmp_path / "tree", made_in=tmp_path / "made")


GRID = Grid((6, 5, 3), np.diag([-2.0, -2.0, 4.0, 1.0]))


def square(low: float, high: float, z: float) -> np.ndarray:
    corners = np.array([[low, low], [high, low], [high, high], [low, high]]) * -2.0
    return np.column_stack([corners, np.full(4, z * 4.0)])


def test_contours_of_one_slice_are_combined_by_even_and_odd() -> None:
    hole = Region("a", (square(0.5, 4.5, 1), square(1.5, 3.5, 1)))
    keyhole = np.concatenate(
        [square(0.5, 4.5, 1), square(0.5, 4.5, 1)[:1], square(1.5, 3.5, 1)[::-1]]
    )
    keyhole = np.concatenate([keyhole, square(1.5, 3.5, 1)[-1:]])
    first = label_of_regions([hole], [7], GRID, Path("rt"))
    expected = np.zeros((6, 5, 3), dtype=np.int32)
    expected[1:5, 1:5, 1] = 7
    expected[2:4, 2:4, 1] = 0
    np.testing.assert_array_equal(first, expected)
    joined = label_of_regions([Region("a", (keyhole,))], [7], GRID, Path("rt"))
    np.testing.assert_array_equal(joined, expected)
    outside = label_of_regions([Region("a", (square(-9, 99, 0),))], [1], GRID, Path("rt"))
    assert outside.sum() == 30


def test_contours_beside_the_slices_and_shared_voxels_are_refused() -> None:
    for z in (0.5, 3.0, -1.0):
        with pytest.raises(GeometryError, match="is on no slice"):
            label_of_regions([Region("a", (square(1, 3, z),))], [1], GRID, Path("rt"))
    regions = [Region("ptv", (square(0.5, 3.5, 1),)), Region("gtv", (square(1.5, 2.5, 1),))]
    with pytest.raises(ImageError, match="choose among ptv,gtv"):
        label_of_regions(regions, [1, 2], GRID, Path("rt"))


def test_a_file_that_is_no_structure_set_is_named(studies: list[Path]) -> None:
    with pytest.raises(ImageError) as caught:
        read_regions(next(studies[0].iterdir()))
    assert caught.value.reason == "not_rtstruct"


@pytest.mark.parametrize("order", ["as stored", "flipped", "turned"])
@pytest.mark.parametrize("place", ["beside", "by name"])
def test_volumes_are_labels_in_any_storage_order(
    studies: list[Path], tmp_path: Path, order: str, place: str
) -> None:
    expected = {}
    for number, series in enumerate(studies):
        image = read_image(series)
        label = drawn(tuple(image.shape[1:]))
        path = series.parent / "seg.nii.gz"
        if place == "by name":
            path = tmp_path / f"tree/labels/{number}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        write_label(path, label, like=image)
        stored = nib.load(path)
        if order == "flipped":
            axes = [[0, 1], [1, -1], [2, 1]]
            stored = stored.as_reoriented(axes)
        elif order == "turned":
            stored = stored.as_reoriented([[2, -1], [0, 1], [1, -1]])
        nib.save(nib.Nifti1Image(np.asarray(stored.dataobj), stored.affine), path)
        expected[series] = label.numpy()
    manifest = build_manifest(tmp_path / "tree", made_in=tmp_path / "made")
    assert len(manifest.training) == 2
    assert check_manifest(manifest) == []
    for case in manifest.training:
        series = (manifest.root / case.image[0]).resolve()
        like = read_image(series)
        found = read_label(manifest.root / str(case.label), like=like)
        assert grid_of(found).shape == grid_of(like).shape
        np.testing.assert_array_equal(found.numpy()[0], expected[series])


def test_a_volume_on_another_grid_or_without_a_study_is_named(
    studies: list[Path], tmp_path: Path
) -> None:
    for series in studies:
        image = read_image(series)
        write_label(series.parent / "seg.nii.gz", drawn(tuple(image.shape[1:])), like=image)
    other = nib.load(studies[1].parent / "seg.nii.gz")
    affine = other.affine.copy()
    affine[0, 3] += 7
    nib.save(nib.Nifti1Image(np.asarray(other.dataobj), affine), studies[1].parent / "seg.nii.gz")
    with pytest.raises(
        ManifestError, match=r"its label seg\.nii\.gz are on different grids \(first voxel at"
    ):
        build_manifest(tmp_path / "tree", made_in=tmp_path / "made")
    shutil.move(studies[1].parent / "seg.nii.gz", tmp_path / "tree/seg.nii.gz")
    with pytest.raises(ManifestError, match="belongs to none or to several"):
        build_manifest(tmp_path / "tree", made_in=tmp_path / "made")


def test_a_series_that_a_session_lacks_is_dropped_and_said(
    shared_data: Shared, tmp_path: Path
) -> None:
    tree = shutil.copytree(shared_data("pgbm"), tmp_path / "pgbm")
    shutil.rmtree(next(tree.rglob("*T2reg*")))
    manifest = build_manifest(tree, label_names=["tumour"])
    assert [one.name for one in manifest.channels] == ["FLAIR_reg", "T1post"]
    [line] = [one for one in manifest.remarks if "T2_reg" in one]
    assert line.startswith("T2_reg dropped: missing in 1 of 2 sessions (")
    assert line.endswith("keep it and drop the session with --require T2_reg")
    with pytest.raises(ManifestError, match="1 labelled case; at least 2 groups are needed"):
        build_manifest(tree, label_names=["tumour"], require=["T2_reg"])
    ordered = build_manifest(tree, label_names=["tumour"], channels=["T1post", "FLAIR_reg"])
    assert [one.name for one in ordered.channels] == ["T1post", "FLAIR_reg"]
