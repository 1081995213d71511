"""Small raster files that share one process: same content, and each fault stays with its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sandbox_processes import SandboxProcesses

from segmed.io import batches, isolated
from segmed.io.arrays import load
from segmed.io.batches import ReadAhead, is_small_raster
from segmed.io.isolated import count_isolated, load_together
from segmed.io.limits import DEFAULT_LIMITS
from segmed.io.source import Loaded

PLENTY = 1 << 40


@pytest.fixture
def pictures(tmp_path: Path, shared_data: Callable[[str], Path]) -> list[Path]:
    """One micrograph in the forms of raster files, and a colour photograph."""
    grey = Image.open(shared_data("isbi2012") / "images/0.png").crop((0, 0, 60, 40))
    deep = np.asarray(grey).astype(np.uint16) * 257
    forms = {
        "grey.png": grey,
        "deep.png": Image.fromarray(deep),
        "deep.tif": Image.fromarray(deep),
        "colour.png": grey.convert("RGB"),
        "palette.png": grey.quantize(7),
        "bits.png": grey.convert("1"),
        "lossy.jpg": grey,
    }
    for name, picture in forms.items():
        picture.save(tmp_path / name)
    return [tmp_path / name for name in forms]


def load_alone(path: Path, *, is_label: bool = False) -> Loaded:
    return load(path, DEFAULT_LIMITS, trusted=False, exact=is_label)


def same(one: Loaded, other: Loaded) -> bool:
    """Return whether two files have the same content and origin."""
    return (
        one.array.dtype == other.array.dtype
        and np.array_equal(one.array, other.array)
        and np.array_equal(one.affine_ras, other.affine_ras)
        and one.source == other.source
    )


@pytest.mark.parametrize("is_label", [False, True])
def test_files_of_a_batch_have_the_content_of_files_read_alone(
    pictures: list[Path], is_label: bool
) -> None:
    files = [(path, is_label) for path in pictures]
    ahead = ReadAhead(files)
    found = 0
    for path, exact in files:
        loaded = ahead.take(path, is_label=exact)
        if loaded is None:
            assert is_label
            assert path.name in {"colour.png", "lossy.jpg"}  # no label maps
            continue
        assert same(loaded, load_alone(path, is_label=exact))
        found += 1
    assert found == (5 if is_label else 7)


def test_refused_files_of_a_batch_leave_the_others(pictures: list[Path], tmp_path: Path) -> None:
    whole = pictures[0].read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    (tmp_path / "torn.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flipped.png").write_bytes(bytes(flipped))
    (tmp_path / "huge.png").write_bytes(whole[:16] + b"\x7f\xff\xff\xff" * 2 + whole[24:])
    bad = [tmp_path / name for name in ("torn.png", "flipped.png", "huge.png", "gone.png")]
    files = [(path, False) for pair in zip(pictures, bad, strict=False) for path in pair]
    found = load_together(files, decoded_bytes=PLENTY)
    assert [one is None for one in found] == [False, True] * 4


@pytest.mark.parametrize("at", [0, 2, 6])
def test_files_around_one_that_kills_the_process_are_read_and_it_alone_is_left(
    pictures: list[Path], sandbox: SandboxProcesses, at: int
) -> None:
    ahead = ReadAhead([(path, False) for path in pictures])
    sandbox.kill(at)
    found = [ahead.take(path, is_label=False) for path in pictures]
    for number, (path, loaded) in enumerate(zip(pictures, found, strict=True)):
        assert (loaded is None) == (number == at)
        assert loaded is None or same(loaded, load_alone(path))
    names = [path.name for path in pictures]
    batches_of = [one for one in sandbox.files if len(one) > 1]
    assert batches_of == [names, names[at + 1 :]][: 1 + (at < 6)]


def test_a_process_that_exceeds_its_time_is_ended_and_leaves_what_it_has_read(
    pictures: list[Path], sandbox: SandboxProcesses
) -> None:
    load_together([(pictures[0], False)], decoded_bytes=PLENTY)  # a server waits from here on
    sandbox.hold(1)
    found = load_together([(path, False) for path in pictures], decoded_bytes=PLENTY, timeout_s=2.0)
    assert found[-1] is None  # a slow machine may not come to the second file
    assert len(found) <= 2
    assert all(one is not None and same(one, load_alone(pictures[0])) for one in found[:-1])


def test_a_process_without_memory_for_a_file_leaves_it_to_be_read_alone(
    pictures: list[Path], tmp_path: Path
) -> None:
    Image.new("L", (10_000, 10_000)).save(tmp_path / "large.png")
    files = [(path, False) for path in (pictures[0], tmp_path / "large.png", pictures[1])]
    found: list[Loaded | None] = []
    while len(found) < 3:
        found += load_together(files[len(found) :], decoded_bytes=PLENTY, memory_gb=0.6)
    assert [one is None for one in found] == [False, True, False]


@pytest.mark.parametrize(("order", "num_read"), [([0, 2, 1], 1), ([1, 0, 2], 0), ([0, 1, 1], 2)])
def test_answers_to_other_files_do_not_count(
    pictures: list[Path], monkeypatch: pytest.MonkeyPatch, order: list[int], num_read: int
) -> None:
    alone = [load_alone(path) for path in pictures[:3]]
    real = isolated.run_isolated

    def mixed_up(folder: Path, timeout_s: float) -> int | None:
        status = real(folder, timeout_s)
        place = folder / "answers.jsonl"
        lines = place.read_text(encoding="utf-8").splitlines(keepends=True)
        place.write_text("".join(lines[number] for number in order), encoding="utf-8")
        return status

    monkeypatch.setattr(isolated, "run_isolated", mixed_up)
    found = load_together([(path, False) for path in pictures[:3]], decoded_bytes=PLENTY)
    assert [one is not None for one in found] == [True] * num_read or found == [None]
    assert len(found) == max(1, num_read)
    assert all(one is None or same(one, right) for one, right in zip(found, alone, strict=False))


def test_refused_files_are_left_out_of_the_counts_of_a_batch(
    pictures: list[Path], sandbox: SandboxProcesses
) -> None:
    masks = [pictures[4], pictures[3], pictures[5]]  # the second has colours
    found = count_isolated(masks)
    assert len(sandbox.requests) == 1
    assert [one is None for one in found] == [False, True, False]
    for path, facts in zip(masks, found, strict=True):
        if facts is not None:
            values, counts = np.unique(load_alone(path, is_label=True).array, return_counts=True)
            assert facts.voxels == dict(zip(values.tolist(), counts.tolist(), strict=True))


def test_decoded_pixels_of_a_batch_are_bounded(
    pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [(path, False) for path in pictures[:5]]
    room = 3 * 60 * 40 * 4  # float32 of three grey images
    assert len(load_together(files, decoded_bytes=room)) == 3
    assert len(load_together(files, decoded_bytes=1)) == 1
    monkeypatch.setattr(batches, "DECODED_BYTES", room)
    ahead = ReadAhead(files)
    for number, (path, _) in enumerate(files):
        is_last = number == len(files) - 1  # left by itself, it is read alone
        assert (ahead.take(path, is_label=False) is None) == is_last
        assert sum(one.array.nbytes for one in ahead._read.values()) <= room


def test_only_small_rasters_are_read_ahead(pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture", encoding="utf-8")
    (tmp_path / "other.dat").write_bytes(pictures[0].read_bytes())
    (tmp_path / "folder.png").mkdir()
    with (tmp_path / "large.png").open("wb") as stream:
        stream.write(pictures[0].read_bytes())
        stream.truncate(batches.LARGEST_BYTES + 1)
    for name in ("text.png", "other.dat", "folder.png", "large.png", "absent.png"):
        assert not is_small_raster(tmp_path / name), name
        ahead = ReadAhead([(tmp_path / name, False), (pictures[0], False)])
        assert ahead.take(tmp_path / name, is_label=False) is None
    assert is_small_raster(pictures[0])


def test_files_that_are_passed_over_are_not_read(pictures: list[Path]) -> None:
    ahead = ReadAhead([(path, False) for path in pictures])
    assert ahead.take(pictures[3], is_label=False) is not None
    assert ahead.take(pictures[0], is_label=False) is None
    assert ahead.take(pictures[3], is_label=False) is None  # once
    assert ahead.take(pictures[4], is_label=True) is None
    assert ahead.take(pictures[4], is_label=False) is not None


def test_counting_continues_behind_a_file_that_ends_its_process(
    pictures: list[Path], monkeypatch: pytest.MonkeyPatch, sandbox: SandboxProcesses
) -> None:
    def ended_at_the_second(folder: Path, timeout_s: float) -> int | None:
        status = sandbox.run(folder, timeout_s)
        if len(sandbox.requests) > 1:
            return status
        place = folder / "answers.jsonl"
        lines = place.read_text(encoding="utf-8").splitlines(keepends=True)
        place.write_text(lines[0] + lines[1][:9], encoding="utf-8")
        return -9

    monkeypatch.setattr(isolated, "run_isolated", ended_at_the_second)
    masks = [pictures[number] for number in (4, 0, 5, 1)]
    found = count_isolated(masks)
    assert [one is None for one in found] == [False, True, False, False]
    assert sandbox.files == [[one.name for one in masks], ["bits.png", "deep.png"]]
    assert found[2:] == count_isolated(masks[2:])
