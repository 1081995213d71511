"""Break a real series in every known way: each fault is named, and what is sound passes."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from broken_series import FAULTS, SOUND, Change, another, only, save
from monai.data import MetaTensor
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid

from segmed.errors import GeometryError, ImageError
from segmed.io import read_image
from segmed.io.dicom.series import scan
from segmed.io.dicom.write import write_series


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_refused_with_its_reason(
    real_series: tuple[FileDataset, ...], tmp_path: Path, name: str
) -> None:
    change, reason = FAULTS[name]
    series = [copy.deepcopy(dataset) for dataset in real_series]
    change(series)
    save(tmp_path, series)
    audit = only(tmp_path)
    assert (audit.usable, audit.reason) == (False, reason), audit.message
    assert audit.message
    assert "\n" not in audit.message
    assert "PGBM" not in audit.message
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path)
    assert caught.value.reason == reason


@pytest.mark.parametrize("change", SOUND, ids=lambda change: change.__name__)
def test_every_harmless_oddity_is_accepted_with_right_voxels(
    real_series: tuple[FileDataset, ...], tmp_path: Path, change: Change
) -> None:
    series = [copy.deepcopy(dataset) for dataset in real_series]
    change(series)
    save(tmp_path, series)
    audit = only(tmp_path)
    assert audit.usable, audit.message
    image = read_image(tmp_path)
    expected = np.stack([dataset.pixel_array.T for dataset in real_series[: len(series)]], axis=-1)
    np.testing.assert_array_equal(image.numpy()[0], expected)
    first = np.asarray(real_series[0].ImagePositionPatient, dtype=float) * (-1, -1, 1)
    np.testing.assert_allclose(np.asarray(image.affine)[:3, 3], first, atol=0.01)


def test_the_message_of_a_gap_names_its_place(tmp_path: Path, two_labels: object) -> None:
    image = MetaTensor(np.zeros((1, 4, 4, 20), dtype=np.float32), affine=np.eye(4))
    write_series(tmp_path, image, omit_slices=[13])
    assert only(tmp_path).message == (
        "slice gap of 2.00 mm between positions 12.0 and 14.0 mm (expected 1.00 mm): "
        "a slice is missing"
    )


@pytest.mark.parametrize("keep", [0, 100, 140, 300, 1200, -1])
def test_a_file_cut_anywhere_is_held_against_its_series(
    real_series: tuple[FileDataset, ...], tmp_path: Path, keep: int
) -> None:
    paths = save(tmp_path, real_series)
    content = paths[0].read_bytes()  # an end slice: geometry alone would not miss it
    paths[0].write_bytes(content[:keep])
    audit = only(tmp_path)
    assert audit.reason in {"empty_file", "truncated", "unreadable"}
    assert paths[0] in audit.offending


@pytest.mark.parametrize("name", ["000", "000.dcm"])
@pytest.mark.parametrize("place", [128, 130])
def test_an_end_slice_whose_magic_is_damaged_is_missed(
    real_series: tuple[FileDataset, ...], tmp_path: Path, name: str, place: int
) -> None:
    paths = save(tmp_path, real_series)
    content = bytearray(paths[0].read_bytes())
    content[place] ^= 1
    paths[0].unlink()
    (tmp_path / name).write_bytes(content)
    (tmp_path / "LICENSE").write_text(
        "UIDs such as 1.2.840.10008.1.2 are no secret", encoding="utf-8"
    )
    audit = only(tmp_path)
    assert (audit.reason, audit.offending) == ("unreadable", (tmp_path / name,))


def test_an_end_slice_that_lost_uid_and_pixels_is_no_foreign_object(
    real_series: tuple[FileDataset, ...], tmp_path: Path
) -> None:
    series = [copy.deepcopy(dataset) for dataset in real_series]
    series[0].SeriesInstanceUID = generate_uid()
    del series[0].PixelData
    save(tmp_path, series)
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path)
    assert caught.value.reason == "several_series"


def test_a_tree_of_mixed_files_is_sorted_into_its_series(
    real_series: tuple[FileDataset, ...], tmp_path: Path
) -> None:
    series = [copy.deepcopy(dataset) for dataset in real_series]
    other = [another(dataset) for dataset in series]
    uid = generate_uid()
    for dataset in other:
        dataset.SeriesInstanceUID = uid
    save(tmp_path / "a" / "deep", series[::2] + other[1::2])
    save(tmp_path / "b", series[1::2] + other[::2])
    (tmp_path / "a" / "notes.txt").write_text("not an image", encoding="utf-8")
    (tmp_path / "a" / ".hidden").write_bytes(b"")
    (tmp_path / "b" / "empty.txt").write_bytes(b"")
    shutil.copy(Path(__file__), tmp_path / "b" / "script.dcm")
    audits = scan(tmp_path)
    (lost,) = [audit for audit in audits if not audit.series_uid]
    assert (lost.reason, lost.files) == ("unreadable", (tmp_path / "b" / "script.dcm",))
    audits.remove(lost)  # named as DICOM: it may have been a slice of either
    assert [audit.usable for audit in audits] == [True, True]
    assert {audit.series_uid for audit in audits} == {uid, real_series[0].SeriesInstanceUID}
    assert all(len(audit.files) == 8 for audit in audits)
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path)
    assert caught.value.reason == "several_series"


def test_a_segmentation_beside_a_series_does_not_disturb_it(
    real_series: tuple[FileDataset, ...], tmp_path: Path, shared_data: Callable[[str], Path]
) -> None:
    save(tmp_path, real_series)
    shutil.copy(shared_data("dicom_seg") / "dcmqi" / "liver.dcm", tmp_path / "seg.dcm")
    reasons = sorted(str(audit.reason) for audit in scan(tmp_path))
    assert reasons == ["None", "not_image"]
    assert read_image(tmp_path).shape == (1, 36, 40, 8)


def test_refusals_of_the_grid_are_geometry_errors(
    real_series: tuple[FileDataset, ...], tmp_path: Path
) -> None:
    save(tmp_path, real_series[:3] + real_series[4:])
    with pytest.raises(GeometryError):
        read_image(tmp_path)


def test_a_folder_without_images_says_so(tmp_path: Path) -> None:
    assert scan(tmp_path) == []
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path)
    assert caught.value.reason == "not_image"
    with pytest.raises(ImageError) as caught:
        scan(tmp_path / "absent")
    assert caught.value.reason == "missing_file"
