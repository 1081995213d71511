"""Kinds of files and folders by the words of their names."""

from __future__ import annotations

import pytest

from segmed.naming import has_mask_words, is_mask_folder


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x_seg", True),
        ("y-label", True),
        ("sub-01_dseg", True),
        ("aseg", True),
        ("tumorMask", True),
        ("T1_masked", False),
        ("segmental_fracture", False),
        ("pcasl_label", False),
    ],
)
def test_masks_by_name(name: str, expected: bool) -> None:
    assert has_mask_words(name) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("labelsTr", True),
        ("labelsTs", True),
        ("segmentations", True),
        ("Masks", True),
        ("manual_segmentation", True),
        ("imagesTr", False),
        ("segmentation_challenge", False),
        ("lung_seg", False),
        ("train", False),
        ("case", False),
    ],
)
def test_folders_of_masks_have_no_other_words(name: str, expected: bool) -> None:
    assert is_mask_folder(name) is expected
