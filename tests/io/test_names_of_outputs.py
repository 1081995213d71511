"""Names of outputs: writable, short enough, one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from segmed.io.atomic import whole_file
from segmed.io.output_names import fitted, folded, mirrored, shown, with_suffix, writable


def test_bytes_that_are_no_text_are_spelled_out() -> None:
    assert writable("M\udcfcller") == "M%FCller"
    assert shown(Path("a\udce9/b\nc")) == "a\\xe9/b\\x0ac"
    assert writable("Ü x.1") == shown("Ü x.1") == "Ü x.1"


@pytest.mark.parametrize("length", [10, 247, 248, 249, 400])
@pytest.mark.parametrize("letter", ["x", "ä", "日"])
def test_names_fit_and_stay_apart(length: int, letter: str) -> None:
    names = {fitted(letter * length + end, ".nii.gz") for end in "ab"}
    assert len(names) == 2
    for name in names:
        assert len(name.encode()) <= 255
        assert name.endswith(".nii.gz")


def test_short_names_stay_as_they_are() -> None:
    assert with_suffix(mirrored(Path("sub-1/ses-2"), "T1.v1"), ".nii.gz") == (
        "sub-1/ses-2/T1.v1.nii.gz"
    )
    assert with_suffix(mirrored(Path(), "x" * 248), ".nii.gz") == "x" * 248 + ".nii.gz"


def test_names_that_some_file_systems_confuse_are_equal_when_folded() -> None:
    assert folded("Scan.NII") == folded("scan.nii")
    assert folded("Mu\u0308ller") == folded("Müller")
    assert folded("a") != folded("b")


@pytest.mark.parametrize("stem", ["x" * 248, "é" * 124])
def test_whole_file_takes_the_longest_names(tmp_path: Path, stem: str) -> None:
    path = tmp_path / f"{stem}.nii.gz"
    with whole_file(path) as partial:
        assert partial.name.endswith(".nii.gz")
        partial.write_bytes(b"1")
    assert path.read_bytes() == b"1"
