"""Several scans of one person show in the names of cases."""

from __future__ import annotations

import re

import pytest

from segmed.naming import guess_subjects, has_mask_words, is_ignore_name


@pytest.mark.parametrize(
    ("ids", "subject", "is_sure"),
    [
        (["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"], "sub-01", True),
        (["patient001_frame01", "patient001_frame12", "patient002_frame01"], "patient001", True),
        (["Subject_7_T1", "Subject_7_T2", "Subject_8_T1"], "Subject_7", True),
        (["0007_visit1", "0007_visit2", "0008_visit1"], "0007", False),
        (["Image_01L", "Image_01R", "Image_02L"], "Image_01", False),
        (["AB12-baseline", "AB12-followup", "CD13-baseline"], "AB12", False),
        (["K12_1", "K12_2", "K14_1"], "K12", False),
        (["P001_20200131", "P001_20210228", "P002_20200131"], "P001", False),
        (
            ["TCGA-02-0006_1996.08.23", "TCGA-02-0006_1997.01.02", "TCGA-02-0009_1997.06.14"],
            "TCGA-02-0006",
            False,
        ),
        (
            ["BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "BraTS-GLI-00002-000"],
            "BraTS-GLI-00001",
            False,
        ),
        (["OAS30001_MR_d0129", "OAS30001_MR_d0757", "OAS30002_MR_d0129"], "OAS30001_MR", False),
        (["001_ax", "001_cor", "002_ax"], "001", False),
        (["100_L_CC", "100_R_MLO", "101_L_CC"], "100", False),
        (["17a", "17b", "18"], "17", False),
        (["K12_2019-05-06", "K12_2020-05-06", "K14"], "K12", False),
    ],
)
def test_scans_of_one_subject_are_found(ids: list[str], subject: str, *, is_sure: bool) -> None:
    guess = guess_subjects(ids)
    assert guess is not None
    assert guess.is_sure == is_sure
    assert guess.repeated[subject] == tuple(ids[:2])
    found = re.search(guess.pattern, ids[0])
    assert found is not None
    assert found[1] == subject


@pytest.mark.parametrize(
    "ids",
    [
        [f"hippocampus_{n:03d}" for n in range(30)],
        [f"case_{n}" for n in range(9)],
        ["sub-01", "sub-02", "sub-03"],
        [f"site1_{n:03d}" for n in range(40)] + [f"site2_{n:03d}" for n in range(40)],
        ["scan1_t1", "scan1_t2"],
        ["K1_20193131", "K1_20209999", "K2_20193131"],
        [],
    ],
)
def test_a_case_a_subject_is_no_guess(ids: list[str]) -> None:
    guess = guess_subjects(ids)
    assert guess is None or not guess.repeated


@pytest.mark.parametrize(
    "text",
    [
        "case_seg",
        "Tumor Mask",
        "brainMask",
        "ROI 1",
        "dseg",
        "P-SEG",
        "Segmentazione",
        "aparc+aseg",
        "máscara",
        "ground truth",
    ],
)
def test_words_of_masks(text: str) -> None:
    assert has_mask_words(text)


@pytest.mark.parametrize(
    "text", ["T1 segmental", "unmasked", "pCASL label", "T1_masked", "relabelled", "segovia", "T2"]
)
def test_parts_of_words_are_no_masks(text: str) -> None:
    assert not has_mask_words(text)


def test_ignore_is_a_word() -> None:
    assert is_ignore_name("Ignore")
    assert is_ignore_name("ignore_label")
    assert not is_ignore_name("signore")


def test_names_made_to_take_long_are_cut_quickly() -> None:
    assert guess_subjects(["1" + "_l" * 120 + "_x", "2" + "-l-" * 80 + "x"]) is None
