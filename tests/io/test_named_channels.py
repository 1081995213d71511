"""Files without channel numbers are the channels of a case by the channels' names."""

from __future__ import annotations

from pathlib import Path

import pytest

from segmed.io.channel_files import CaseFiles, group_channels

BRATS = ("t1n", "t1c", "t2w", "t2f")


def grouped(names: list[str], channels: tuple[str, ...]) -> dict[str, CaseFiles]:
    files = [Path(name) for name in names]
    return {one.case: one for one in group_channels(files, len(channels), names=channels)}


@pytest.mark.parametrize(
    ("stem", "case"),
    [
        ("a/BraTS-GLI-00001-000-{}.nii.gz", "BraTS-GLI-00001-000"),
        ("sub-07/{}.nii", "sub-07"),
        ("x/{}_0007_brain.mha", "0007_brain"),
        ("p3.{}.nrrd", "p3"),
    ],
)
def test_the_name_of_a_channel_may_be_anywhere_as_a_word(stem: str, case: str) -> None:
    files = [stem.format(word) for word in ("T2F", "t1c", "t2w", "T1N")]
    found = grouped(files, BRATS)
    assert list(found) == [case]
    assert [str(path) for path in found[case].files] == [files[3], files[1], files[2], files[0]]
    assert found[case].fault == ""


def test_the_longest_name_counts() -> None:
    channels = ("T1", "T1_post", "ADC")
    found = grouped(["k_T1-post.nii", "k_adc.nii", "k_t1.nii"], channels)
    assert [path.name for path in found["k"].files] == ["k_t1.nii", "k_T1-post.nii", "k_adc.nii"]


def test_other_files_of_the_case_are_left_out_with_the_reason() -> None:
    found = grouped(["a/p-t1c.nii", "a/p-t2f.nii", "a/p-t1n.nii", "a/q.nii"], ("t1c", "t2f"))
    assert {str(path) for path in found["p"].others} == {"a/p-t1n.nii"}
    assert "none of the model's channels t1c, t2f" in next(iter(found["p"].others.values()))
    assert "without a channel number" in found["q"].fault  # of no case with channels
    alone = grouped(["a/t1c.nii", "a/t2f.nii", "a/notes.nii"], ("t1c", "t2f"))
    assert {str(path) for path in alone["a"].others} == {"a/notes.nii"}


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (["p-t1n.nii", "p-t1c.nii", "p-t2w.nii"], "no file of the channel t2f beside p-t1n.nii"),
        (["p-t1n.nii", "p-t1c.nii"], "no file of the channels t2w, t2f"),
        (
            ["p-t1n.nii", "p-t1n.nii.gz", "p-t1c.nii", "p-t2w.nii", "p-t2f.nii"],
            "several files of the channel t1n",
        ),
    ],
)
def test_a_case_without_a_channel_or_with_one_twice_is_refused(
    names: list[str], fault: str
) -> None:
    assert fault in grouped(names, BRATS)["p"].fault


def test_a_name_of_two_channels_names_none() -> None:
    found = grouped(["k_flair_to_t1.nii", "k_flair.nii"], ("flair", "t1"))
    assert all("without a channel number" in one.fault for one in found.values())
    inside = grouped(["act.nii", "flairs.nii"], ("ct", "flair"))
    assert all("CASE-ct.nii.gz, CASE-flair.nii.gz" in one.fault for one in inside.values())


def test_numbers_count_before_names() -> None:
    found = grouped(["t1_0000.nii", "t1_0001.nii"], ("t1", "t2"))
    assert [path.name for path in found["t1"].files] == ["t1_0000.nii", "t1_0001.nii"]
