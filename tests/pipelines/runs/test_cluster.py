"""Studies pulled by the workers of a Dask cluster in this process: its queues, gains and losses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from distributed import Client, LocalCluster
from tiny_data import hippocampus_package

from pipelines.runs import cluster as driver
from pipelines.runs.cluster import DaskHub
from segmed.archive import FolderSource, Ledger, RetryPolicy, segment_archive
from segmed.archive.engine import Results
from segmed.archive.workers.messages import WorkerTerms
from segmed.archive.workers.persistent import close_idle_pools
from segmed.archive.workers.pull_engine import PullEngine
from segmed.archive.workers.setup import Setup
from segmed.errors import ServiceError

OPTIONS = {"engine": "torch", "device": "cpu"}
STUDIES = 6


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as running:
        yield running
    close_idle_pools()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "archive").mkdir()
    for seed in range(STUDIES):
        voxels = np.random.default_rng(seed).integers(0, 900, (12, 10, 8)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / f"archive/{seed}.nii.gz")
    return tmp_path / "archive"


@dataclass
class DaskPool:
    """A pool of `segment_archive` over a client, without a flow."""

    packages: tuple[Path, ...]
    client: Any
    options: dict[str, Any] = field(default_factory=lambda: dict(OPTIONS))
    retry: Any = field(default_factory=RetryPolicy)

    def engine(self, setup: Setup, results: Results) -> PullEngine:
        terms = WorkerTerms(setup, None, self.retry, 1)
        return PullEngine(terms, results, DaskHub(self.client, terms))


@pytest.fixture
def pool(cluster: LocalCluster, tmp_path: Path) -> Iterator[DaskPool]:
    package = hippocampus_package().save(tmp_path / "package")
    with Client(cluster) as client:
        yield DaskPool((package,), client)


def states(out: Path) -> list[str]:
    with Ledger(out / "ledger.sqlite", writer=False) as ledger:
        return [entry.state for entry in ledger.entries()]


def test_a_worker_that_joins_takes_part_and_one_that_leaves_loses_nothing(
    cluster: LocalCluster, pool: DaskPool, archive: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ended = 0
    for outcome in segment_archive(FolderSource(archive), predictor=pool, out_dir=out):
        assert outcome.status == "done", outcome.reason
        if ended == 0:
            cluster.scale(2)
            pool.client.wait_for_workers(2)
            pool.client.retire_workers([next(iter(pool.client.nthreads()))])
        ended += 1
    assert ended == STUDIES
    assert states(out) == ["done"] * STUDIES


class FromAnotherVersion:
    """Cannot be unpickled by a worker."""

    def __reduce__(self) -> Any:
        return look_up, ()


def look_up() -> Any:
    raise AttributeError("module segmed has no attribute no_such_name")


def test_a_worker_that_cannot_do_the_task_ends_the_run_and_is_named(
    pool: DaskPool, archive: Path, tmp_path: Path
) -> None:
    pool.retry = FromAnotherVersion()
    with pytest.raises(ServiceError, match=r"worker inproc://.* cannot take part: Attrib.*no_such"):
        list(segment_archive(FolderSource(archive), predictor=pool, out_dir=tmp_path / "out"))
    assert "running" not in states(tmp_path / "out")


def test_a_run_without_any_worker_left_ends_and_says_how_to_continue(
    cluster: LocalCluster,
    pool: DaskPool,
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(driver, "NO_WORKER_S", 0.5)
    pool.client.retire_workers(list(pool.client.nthreads()))
    with pytest.raises(ServiceError, match=r"no worker after 0 s; start some .* run again"):
        list(segment_archive(FolderSource(archive), predictor=pool, out_dir=tmp_path / "out"))
    assert "running" not in states(tmp_path / "out")
    cluster.scale(2)
    pool.client.wait_for_workers(1)
    outcomes = list(
        segment_archive(FolderSource(archive), predictor=pool, out_dir=tmp_path / "out")
    )
    assert [outcome.status for outcome in outcomes] == ["done"] * STUDIES
