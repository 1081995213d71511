"""Modality by whole words of a channel's name; what contradicts itself is left open."""

from __future__ import annotations

import pytest

from segmed.naming import guess_modality


@pytest.mark.parametrize(
    ("name", "modality"),
    [("CT", "CT"), ("ct_0", "CT"), ("CTscan", "CT"), ("NCCT", "CT"), ("CTA", "CT"), ("MRI", "MR"),
     ("kVCT", "CT"), ("RMN T2", "MR"),
     ("T1w", "MR"), ("t1ce", "MR"), ("T2-FLAIR", "MR"), ("T1post", "MR"), ("ADC", "MR"),
     ("b1000 dwi", "MR"), ("SUV", "PT"), ("FDG-PET", "PT")],
)  # fmt: skip
def test_words_of_a_modality_are_sure(name: str, modality: str) -> None:
    guess = guess_modality(name)
    assert (guess.modality, guess.is_sure) == (modality, True)
    assert repr(name) in guess.why


@pytest.mark.parametrize(
    "name",
    ["act", "direct", "impact", "spectrum", "tracer", "T12", "OCT", "noNorm", "channel_0", "postop",
     "Pdf", "tractography", "expd"],
)  # fmt: skip
def test_parts_of_words_name_no_modality(name: str) -> None:
    guess = guess_modality(name)
    assert (guess.modality, guess.is_sure) == ("OT", False)


@pytest.mark.parametrize("name", ["T1CT", "PET/CT", "petct", "CT_T1", "MR-CT fusion"])
def test_names_of_two_modalities_are_left_open_and_flagged(name: str) -> None:
    guess = guess_modality(name)
    assert (guess.modality, guess.is_sure) == ("OT", False)
    assert "both" in guess.why


def test_words_with_other_meanings_are_flagged() -> None:
    assert guess_modality("CBCT").modality == "CT"
    assert not guess_modality("CBCT").is_sure
    assert guess_modality("cine").modality == "MR"
    assert not guess_modality("cine").is_sure
