"""Real DICOM series beside the NIfTI files that were made of them by a trusted converter."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from volumes_in_space import image_in_ras, in_ras

from segmed.errors import ImageError
from segmed.io import read_image, read_label
from segmed.io.dicom.series import read_series, scan

SOUND = [
    "ge/anatomical/001_single_slice",
    "generic/anatomical/002_non_isotropic",
    "generic/compressed_j2k/001",
    "generic/compressed_rle/001",
    "hitachi/anatomical/001",
    "philips/anatomical/001",
]


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_series_equals_its_reference(shared_data: Callable[[str], Path], name: str) -> None:
    folder = shared_data("dicom_nifti_pairs") / "dicom2nifti"
    reference = nib.load(folder / f"{name}_ground_truth.nii.gz")
    expected, expected_affine = in_ras(reference.get_fdata(), reference.affine)
    values, affine = image_in_ras(read_image(folder / name))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4 * scale * 1e-2)
    np.testing.assert_allclose(affine, expected_affine, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("dicom2nifti/ge/fmri/001", "several_volumes"),
        ("dicom2nifti/failing/gantrytilting/001", "tilt"),
        ("dicom2nifti/failing/sliceincrement/001", "missing_slice"),
    ],
)
def test_an_unsound_series_is_refused_for_its_true_reason(
    shared_data: Callable[[str], Path], name: str, reason: str
) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(shared_data("dicom_nifti_pairs") / name)
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", ["12bitSigned_0x0F0F", "12bitUnsigned", "12bitUnsigned_0x0F0F"])
def test_a_mosaic_is_refused(shared_data: Callable[[str], Path], name: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(shared_data("dicom_nifti_pairs") / "dcm_qa_12bit" / "In" / f"{name}.dcm")
    assert caught.value.reason == "mosaic"


def test_hippocampus_studies_are_sound_and_whole(shared_data: Callable[[str], Path]) -> None:
    audits = scan(shared_data("hippocampus_dicom"))
    assert [audit.shape for audit in audits] == [(35, 51, 32), (36, 48, 35), (34, 50, 40)]
    assert all(audit.usable and audit.spacing_mm == (1, 1, 1) for audit in audits)
    assert all(len(audit.files) == audit.shape[2] for audit in audits)


def test_pgbm_series_share_one_grid_and_the_mask_reads_as_a_label(
    shared_data: Callable[[str], Path],
) -> None:
    audits = scan(shared_data("pgbm") / "PGBM-001")
    assert [audit.usable for audit in audits] == [True] * 4
    masks = [audit for audit in audits if "secondary capture" in " ".join(audit.notes)]
    assert len(masks) == 1
    mask = read_label(masks[0].files[0].parent)
    assert int(mask.sum()) == 6809
    for audit in audits:
        np.testing.assert_allclose(audit.affine_ras, np.asarray(mask.affine), atol=1e-4)
        assert audit.spacing_mm == pytest.approx((0.6875, 0.6875, 6.5), abs=1e-3)


def test_enhanced_multi_frame_equals_the_same_slices_as_files(
    shared_data: Callable[[str], Path],
) -> None:
    folder = shared_data("dicom_seg") / "dcmqi" / "23x38x3"
    classic = read_image(folder / "image")
    enhanced = read_image(folder / "multiframe")
    np.testing.assert_array_equal(enhanced.numpy(), classic.numpy())
    np.testing.assert_allclose(np.asarray(enhanced.affine), np.asarray(classic.affine), atol=1e-6)


def test_neither_errors_nor_logs_carry_patient_identifiers(
    shared_data: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = shared_data("dicom_nifti_pairs") / "dcm_qa_12bit" / "In"
    raw = (folder / "12bitUnsigned.dcm").read_bytes()
    name = raw[raw.index(b"\x10\x00\x10\x00PN") + 8 :][:6].decode()
    with caplog.at_level(logging.DEBUG):
        audits = scan(folder)
        with pytest.raises(ImageError) as caught:
            read_series(audits[0])
    spoken = caplog.text + repr(audits) + str(caught.value)
    assert len(name.strip()) >= 3
    assert name not in spoken
    assert audits[0].series_uid not in spoken
