"""The pool that stays on a machine of a cluster: one model for many batches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tiny_model import LABELS

from segmed.archive import FolderSource, NotImage, RetryPolicy, Study, model_of, read_packages
from segmed.archive.job import Job
from segmed.archive.study import StudySource
from segmed.archive.workers import persistent
from segmed.archive.workers.persistent import StudyBatch, close_idle_pools, segment_batch
from segmed.archive.workers.setup import Setup
from segmed.archive.writing import Writing
from segmed.errors import ServiceError


@pytest.fixture
def setup(package_folder: Path) -> Iterator[Setup]:
    model = model_of(read_packages(package_folder))
    writing = Writing("nifti", LABELS, model.name, model.hash)
    yield Setup((package_folder,), writing, {"engine": "torch", "device": "cpu"})
    close_idle_pools()


@pytest.fixture
def jobs(tmp_path: Path, write_nifti: Callable[..., Path]) -> list[Job]:
    for seed in range(4):
        write_nifti(tmp_path / f"archive/{seed}.nii.gz", seed)
    found = [s for s in FolderSource(tmp_path / "archive").studies() if isinstance(s, Study)]
    return [
        Job(f"key{n}", study, tmp_path / "out" / f"{n}.nii.gz") for n, study in enumerate(found)
    ]


def test_batches_share_one_pool_also_at_once(setup: Setup, jobs: list[Job], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    results = {}

    def work(number: int) -> None:
        batch = StudyBatch(setup, tuple(jobs[2 * number : 2 * number + 2]))
        results.update({result.key: result for result in segment_batch(batch)})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [job.key for job in jobs]
    assert all(result.output_sha256 for result in results.values())
    [pool] = persistent._pools.values()
    moved = replace(setup, packages=(tmp_path / "nowhere",))
    # The same model from another place is not loaded anew.
    segment_batch(StudyBatch(moved, (jobs[0],)))
    assert list(persistent._pools.values()) == [pool]


@dataclass(frozen=True)
class GoneSource:
    """A network source whose server went away."""

    def studies(self) -> Iterator[Study | NotImage]:
        yield from ()

    def fetch(self, study: Study, folder: Path) -> Study:
        raise ServiceError("the PACS does not answer")


def gone() -> StudySource:
    return GoneSource()


def test_study_that_cannot_be_fetched_ends_badly_and_the_others_go_on(
    setup: Setup, jobs: list[Job], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    remote = replace(jobs[0], study=replace(jobs[0].study, channels=()))
    retry = RetryPolicy(attempts=2, first_wait_s=0.01)
    batch = StudyBatch(setup, (remote, jobs[1]), gone, retry)
    results = {result.key: result for result in segment_batch(batch)}
    assert (results["key0"].reason, results["key0"].refused) == ("service", False)
    assert results["key1"].output_sha256


def test_pool_that_cannot_start_fails_the_batch(
    setup: Setup, jobs: list[Job], tmp_path: Path
) -> None:
    broken = replace(setup, options={**setup.options, "device": "abacus"})
    with pytest.raises(ServiceError, match="abacus"):
        segment_batch(StudyBatch(broken, tuple(jobs)))
    assert not persistent._pools, "the next batch would wait for ever"
