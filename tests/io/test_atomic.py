"""Files and folders appear whole or not at all, whoever writes them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from segmed.io.atomic import whole_file, whole_folder, write_whole

REPOSITORY = Path(__file__).resolve().parents[2]
BY_HAND = re.compile(r"os\.fsync|os\.replace|\bhashlib\.(sha256|file_digest)|\.errors\(\)\[0\]")
"""Acts that one module does for all others."""

ONE_PLACE = {
    "segmed/io/atomic.py", "segmed/io/digest.py", "segmed/validation.py", "segmed/io/salt.py",
    "segmed/package/card.py", "segmed/inference/openvino_engine.py",
}  # fmt: skip
"""The modules themselves; a keyed digest; digests of several parts in a row."""


def test_a_file_appears_whole_and_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[bool] = []
    real = os.fsync

    def note(handle: int) -> None:
        flushed.append((tmp_path / "a.json").exists())
        real(handle)

    monkeypatch.setattr(os, "fsync", note)
    assert write_whole(tmp_path / "a.json", "text ä").read_text(encoding="utf-8") == "text ä"
    assert flushed == [False, True]  # the file before its name, the folder after


@pytest.mark.parametrize("before", [None, "old"])
def test_an_error_leaves_what_was_there(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "a.txt"
    if before is not None:
        path.write_text(before, encoding="utf-8")
    with pytest.raises(ZeroDivisionError), whole_file(path) as draft:
        draft.write_text(f"half {1 / 0}", encoding="utf-8")
    assert (path.read_text(encoding="utf-8") if path.exists() else None) == before
    assert {entry.name for entry in tmp_path.iterdir()} <= {"a.txt"}


def test_a_folder_appears_whole_and_replaces_another_only_if_asked(tmp_path: Path) -> None:
    path = tmp_path / "made"
    with whole_folder(path) as draft:
        (draft / "one").write_text("1", encoding="utf-8")
        assert not path.exists()
    with pytest.raises(OSError, match="not empty"), whole_folder(path) as draft:
        (draft / "two").write_text("2", encoding="utf-8")
    assert [entry.name for entry in path.iterdir()] == ["one"]
    with whole_folder(path, replaces=True) as draft:
        (draft / "three").write_text("3", encoding="utf-8")
    assert [entry.name for entry in path.iterdir()] == ["three"]
    with pytest.raises(ZeroDivisionError), whole_folder(path, replaces=True):
        raise ZeroDivisionError
    assert [entry.name for entry in tmp_path.iterdir()] == ["made"]
    assert [entry.name for entry in path.iterdir()] == ["three"]


def test_nobody_flushes_digests_or_words_by_hand() -> None:
    found = {
        str(path.relative_to(REPOSITORY))
        for package in ("segmed", "pipelines")
        for path in (REPOSITORY / package).rglob("*.py")
        if BY_HAND.search(path.read_text(encoding="utf-8"))
    }
    assert found <= ONE_PLACE
