"""A digest is trusted for files that nobody touched, and for no others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from segmed.manifest import known_digests
from segmed.manifest.known_digests import KnownDigests


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images whose digest is taken, as they are."""
    names: list[str] = []
    real = known_digests.image_digest

    def counted(path: Path) -> str:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(known_digests, "image_digest", counted)
    return names


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "patient doe.png"
    path.write_bytes(b"one")
    later = time.time_ns() + 10 * known_digests.SETTLED_NS
    monkeypatch.setattr(known_digests.time, "time_ns", lambda: later)
    return path


def test_an_untouched_file_is_read_once(image: Path, tmp_path: Path, taken: list[str]) -> None:
    first = KnownDigests(tmp_path / "digests.json")
    digest = first.digest(image)
    assert first.digest(image) == digest
    first.save()
    assert KnownDigests(tmp_path / "digests.json").digest(image) == digest
    assert taken == [image.name]
    assert "doe" not in (tmp_path / "digests.json").read_text(encoding="utf-8")


def rewritten_in_place(path: Path) -> None:
    stat = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replaced_with_its_times(path: Path) -> None:
    stat = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"two")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)


def lengthened(path: Path) -> None:
    path.write_bytes(b"one and more")


@pytest.mark.parametrize("touch", [rewritten_in_place, replaced_with_its_times, lengthened])
def test_a_touched_file_is_read_again_even_with_its_old_time(
    image: Path, tmp_path: Path, touch: Callable[[Path], None], taken: list[str]
) -> None:
    known = KnownDigests(tmp_path / "digests.json")
    before = known.digest(image)
    known.save()
    time.sleep(0.02)  # a tick of the file system's clock
    touch(image)
    assert known.digest(image) != before
    assert KnownDigests(tmp_path / "digests.json").digest(image) != before
    assert len(taken) == 3


def test_a_file_written_just_now_is_not_trusted_at_the_next_start(
    tmp_path: Path, taken: list[str]
) -> None:
    path = tmp_path / "new.png"
    path.write_bytes(b"one")
    known = KnownDigests(tmp_path / "digests.json")
    known.digest(path)
    known.digest(path)
    assert len(taken) == 1
    known.save()
    KnownDigests(tmp_path / "digests.json").digest(path)
    assert len(taken) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"form": 0, "digests": {}}', '{"form": 1}'])
def test_a_damaged_file_of_digests_counts_for_nothing(
    image: Path, tmp_path: Path, content: str
) -> None:
    (tmp_path / "digests.json").write_text(content, encoding="utf-8")
    known = KnownDigests(tmp_path / "digests.json")
    assert len(known.digest(image)) == 64
    known.save()
    assert KnownDigests(tmp_path / "digests.json").digest(image) == known.digest(image)


def test_a_slice_that_changes_in_a_folder_is_noticed(image: Path, tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_bytes(b"1")
    known = KnownDigests(tmp_path / "digests.json")
    before = known.digest(folder)
    (folder / "c").write_bytes(b"2")
    assert known.digest(folder) != before
