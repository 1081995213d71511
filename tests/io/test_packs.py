"""Packs appear whole, are found by any process, and never give bytes that were not written."""

from __future__ import annotations

from pathlib import Path

import pytest

from segmed.io.packs import DamagedRecordError, PackIndex, read_index, write_pack


def test_records_are_read_back_in_parts(tmp_path: Path) -> None:
    path = write_pack(tmp_path, [("a", b"0123456789", {"n": 1}), ("b", b"xyz", None)])
    records = read_index(path)
    assert records["a"].facts == {"n": 1}
    assert records["a"].read([(0, 2), (7, 3)]) == [b"01", b"789"]
    assert records["b"].read([(0, 3)]) == [b"xyz"]
    with pytest.raises(DamagedRecordError):
        records["a"].read([(8, 3)])  # the bytes after it are those of another record


def test_the_latest_of_equal_keys_counts(tmp_path: Path) -> None:
    index = PackIndex(tmp_path)
    for content in (b"old", b"new"):
        write_pack(tmp_path, [("a", content, None)])
    index.refresh()
    found = index.get("a")
    assert found is not None
    assert found.read([(0, 3)]) == [b"new"]


def test_packs_of_other_processes_are_found_and_removed_ones_forgotten(tmp_path: Path) -> None:
    index = PackIndex(tmp_path)
    index.refresh()
    path = write_pack(tmp_path, [("a", b"1", None)])
    assert index.get("a") is None
    index.refresh()
    assert index.get("a") is not None
    path.unlink()
    index.refresh()
    assert index.get("a") is None


@pytest.mark.parametrize("keep", [0, 3, 20, -1])
def test_a_pack_that_was_cut_short_is_removed(tmp_path: Path, keep: int) -> None:
    path = write_pack(tmp_path, [("a", b"1" * 100, None)])
    path.write_bytes(path.read_bytes()[:keep])
    index = PackIndex(tmp_path)
    index.refresh()
    assert index.get("a") is None
    assert not path.exists()


def test_files_of_others_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    for name in ("notes.txt", "mine.pack", ".partial-1-00.pack"):
        (tmp_path / name).write_text("kept", encoding="utf-8")
    PackIndex(tmp_path).refresh()
    assert len(list(tmp_path.iterdir())) == 3
