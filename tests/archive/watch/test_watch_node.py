"""Studies that are sent to the node of a watch: each is segmented once for each content."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import storm

from segmed.archive import FolderSource, segment_archive
from segmed.archive.watch.arrival import Completeness
from segmed.archive.watch.node import inbox_of
from segmed.inference import Predictor


@pytest.fixture
def two_studies(
    tmp_path: Path, write_dicom: Callable[..., list[Path]]
) -> tuple[list[Path], list[Path]]:
    """Two studies of two patients."""
    return (
        write_dicom(tmp_path / "sent/a", 1, patient="A"),
        write_dicom(tmp_path / "sent/b", 2, patient="B"),
    )


def shuffled(*parts: list[Path], seed: int = 0) -> list[Path]:
    files = [path for part in parts for path in part]
    random.Random(seed).shuffle(files)
    return files


def outputs(out: Path) -> set[bytes]:
    return {path.read_bytes() for path in (out / "segmentations").glob("*.nii.gz")}


def segmented(folder: Path, predictor: Predictor, out: Path) -> set[bytes]:
    """Outputs of an archive run over a folder."""
    for _ in segment_archive(FolderSource(folder), predictor=predictor, out_dir=out):
        pass
    return outputs(out)


def test_shuffled_doubled_and_interleaved_slices_survive_kills(
    tmp_path: Path,
    predictor: Predictor,
    package_folder: Path,
    two_studies: tuple[list[Path], list[Path]],
) -> None:
    files = shuffled(*two_studies)
    watch = storm.WatchProcess(tmp_path / "out", package_folder)
    with watch.running():
        storm.storm(watch, files, kills=3, seed=1)
        watch.wait_until_settled(2)
        assert len(storm.done(watch.out)) == 2
        assert {state for state, _ in storm.done(watch.out).values()} == {"done"}
    assert outputs(watch.out) == segmented(tmp_path / "sent", predictor, tmp_path / "calm")


def test_late_slice_makes_a_study_segmented_anew_and_replaces(
    tmp_path: Path,
    predictor: Predictor,
    package_folder: Path,
    two_studies: tuple[list[Path], list[Path]],
) -> None:
    files, _ = two_studies
    watch = storm.WatchProcess(tmp_path / "out", package_folder)
    with watch.running():
        assert storm.send(watch.port, files[:-1]) == files[:-1]
        watch.wait_until_settled(1)
        [early] = outputs(watch.out)
        assert storm.send(watch.port, files[-1:]) == files[-1:]
        storm.wait_for(lambda: outputs(watch.out) != {early} and storm.is_idle(watch.out))
        [(state, _)] = storm.done(watch.out).values()
    assert state == "done"
    assert outputs(watch.out) == segmented(tmp_path / "sent/a", predictor, tmp_path / "calm")


def test_storescu_of_a_whole_study_twice_is_one_result(
    tmp_path: Path, package_folder: Path, two_studies: tuple[list[Path], list[Path]]
) -> None:
    if shutil.which("storescu") is None:
        pytest.skip("storescu is missing: apt-get install dcmtk")
    watch = storm.WatchProcess(tmp_path / "out", package_folder)
    with watch.running():
        for _ in range(2):
            ended = storm.storescu(watch.port, shuffled(two_studies[0]))
            assert ended.returncode == 0, ended.stderr
            watch.wait_until_settled(1)
        assert len(storm.done(watch.out)) == 1
    received = {storm.data_of(p.read_bytes()) for p in inbox_of(watch.out).rglob("[!.]*.dcm")}
    assert received == {storm.data_of(path.read_bytes()) for path in two_studies[0]}


def test_study_without_its_expected_instances_is_refused_and_done_when_they_come(
    tmp_path: Path, package_folder: Path, two_studies: tuple[list[Path], list[Path]]
) -> None:
    files, _ = two_studies
    rules = Completeness(quiet_s=0.2, min_instances=len(files), longest_wait_s=0.5)
    watch = storm.WatchProcess(tmp_path / "out", package_folder, rules)
    with watch.running():
        storm.send(watch.port, files[:-1])
        watch.wait_until_settled(1)
        [(state, _)] = storm.done(watch.out).values()
        assert state == "refused"
        storm.send(watch.port, files[-1:])
        storm.wait_for(lambda: bool(outputs(watch.out)) and storm.is_idle(watch.out))
        [(state, _)] = storm.done(watch.out).values()
        assert state == "done"


@pytest.mark.slow
def test_fifty_kills_lose_and_double_nothing(
    tmp_path: Path,
    predictor: Predictor,
    package_folder: Path,
    write_dicom: Callable[..., list[Path]],
) -> None:
    parts = [write_dicom(tmp_path / f"sent/{seed}", seed, patient=str(seed)) for seed in range(6)]
    watch = storm.WatchProcess(tmp_path / "out", package_folder)
    with watch.running():
        storm.storm(watch, shuffled(*parts), kills=50, seed=5)
        watch.wait_until_settled(6)
        assert [state for state, _ in storm.done(watch.out).values()] == ["done"] * 6
    assert outputs(watch.out) == segmented(tmp_path / "sent", predictor, tmp_path / "calm")
