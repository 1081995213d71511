"""Workers that pull studies from the driver's queue; the network between them is in memory."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from memory_hub import MemoryHub

from segmed.archive import (
    FolderSource,
    Ledger,
    NotImage,
    RetryPolicy,
    Study,
    StudyOutcome,
    segment_archive,
)
from segmed.archive.engine import Results
from segmed.archive.study import StudySource
from segmed.archive.workers import persistent
from segmed.archive.workers.messages import Answered, WorkerTerms
from segmed.archive.workers.persistent import close_idle_pools
from segmed.archive.workers.pull_engine import PullEngine
from segmed.archive.workers.setup import Setup
from segmed.errors import ServiceError
from segmed.inference import Predictor

OPTIONS = {"engine": "torch", "device": "cpu"}
STUDIES = 9


@dataclass
class MemoryCluster:
    """A pool of `segment_archive` whose workers are threads of this process."""

    packages: tuple[Path, ...]
    workers: int = 2
    options: dict[str, Any] = field(default_factory=lambda: dict(OPTIONS))
    open_source: Callable[[], StudySource] | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    folders: tuple[Path, ...] = ()
    hub: MemoryHub | None = None

    def engine(self, setup: Setup, results: Results) -> PullEngine:
        terms = WorkerTerms(setup, self.open_source, self.retry, 1, self.folders)
        self.hub = MemoryHub(terms, self.workers)
        return PullEngine(terms, results, self.hub)


@pytest.fixture(autouse=True)
def no_pool_is_left() -> Iterator[None]:
    yield
    close_idle_pools()


@pytest.fixture
def archive(tmp_path: Path, write_nifti: Callable[..., Path]) -> Path:
    for seed in range(STUDIES - 1):
        write_nifti(tmp_path / f"archive/{seed % 3}/{seed}.nii.gz", seed)
    (tmp_path / "archive/broken.nii.gz").write_bytes(b"\x1f\x8b no image")
    write_nifti(tmp_path / "archive/copy.nii.gz", 0)
    return tmp_path / "archive"


def ends(out: Path) -> dict[str, tuple[str, str, str | None, int]]:
    with Ledger(out / "ledger.sqlite", writer=False) as ledger:
        return {e.key: (e.state, e.reason, e.output_sha256, e.attempts) for e in ledger.entries()}


def files(out: Path) -> dict[str, bytes]:
    found = (out / "segmentations").rglob("*.nii.gz")
    return {str(path.relative_to(out)): path.read_bytes() for path in found}


def test_one_worker_two_workers_and_this_process_give_equal_files(
    tmp_path: Path, archive: Path, package_folder: Path, predictor: Predictor
) -> None:
    outs = {}
    for workers in (1, 2):
        cluster = MemoryCluster((package_folder,), workers, folders=(archive,))
        outs[workers] = tmp_path / f"out{workers}"
        segmented = segment_archive(FolderSource(archive), predictor=cluster, out_dir=outs[workers])
        assert len(list(segmented)) == STUDIES + 1
        assert cluster.hub is not None
        hashed = [m for link in cluster.hub.links.values() for m in link.sent]
        assert sum(isinstance(m, Answered) for m in hashed) == STUDIES + 1, "the workers hash"
        assert all(cluster.hub.done_by(name) for name in cluster.hub.links), "all take part"
    assert len(persistent._pools) == 1, "the model is loaded once for both runs"
    alone = tmp_path / "alone"
    list(segment_archive(FolderSource(archive), predictor=predictor, out_dir=alone))
    assert ends(outs[1]) == ends(outs[2]) == ends(alone)
    assert files(outs[1]) == files(outs[2]) == files(alone)
    assert sorted(end[0] for end in ends(alone).values()) == ["done"] * 8 + ["refused"]


def test_a_lost_worker_loses_no_study_and_each_is_booked_once(
    tmp_path: Path, archive: Path, package_folder: Path, predictor: Predictor
) -> None:
    cluster = MemoryCluster((package_folder,), 2)
    outcomes: list[StudyOutcome] = []
    lost: list[str] = []
    for outcome in segment_archive(
        FolderSource(archive), predictor=cluster, out_dir=tmp_path / "out"
    ):
        outcomes.append(outcome)
        hub = cluster.hub
        assert hub is not None
        if not lost:
            lost.append("worker-0")
            hub.cut("worker-0")
            hub.add()
    assert len(outcomes) == STUDIES + 1
    assert cluster.hub is not None
    list(segment_archive(FolderSource(archive), predictor=predictor, out_dir=tmp_path / "calm"))
    assert ends(tmp_path / "out") == ends(tmp_path / "calm")
    assert files(tmp_path / "out") == files(tmp_path / "calm")


@dataclass(frozen=True)
class GoneSource:
    """A network source: one study is to be had, of another the server says nothing."""

    root: Path

    def studies(self) -> Iterator[Study | NotImage]:
        for study in FolderSource(self.root).studies():
            yield replace(study, channels=()) if isinstance(study, Study) else study

    def fetch(self, study: Study, folder: Path) -> Study:
        if study.place.startswith("0"):
            raise ServiceError("the PACS does not answer")
        (folder / "fetched").touch()
        found = FolderSource(self.root).studies()
        return next(s for s in found if isinstance(s, Study) and s.place == study.place)


def test_workers_fetch_and_a_study_that_cannot_be_fetched_ends_badly(
    tmp_path: Path, archive: Path, package_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "spool"))
    (tmp_path / "spool").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    cluster = MemoryCluster(
        (package_folder,),
        open_source=functools.partial(GoneSource, archive),
        retry=RetryPolicy(attempts=2, first_wait_s=0.01),
    )
    outcomes = list(
        segment_archive(GoneSource(archive), predictor=cluster, out_dir=tmp_path / "out")
    )
    reasons = [outcome.reason.partition(":")[0] for outcome in outcomes]
    assert reasons.count("service") == 2, "those in folder 0 but the one with a copy elsewhere"
    assert reasons.count("corrupt") == 1
    assert reasons.count("") == STUDIES + 1 - 3
    assert not list((tmp_path / "spool").rglob("fetched")), "fetched files are left behind"


@pytest.mark.parametrize(
    ("options", "folders", "message"),
    [
        ({**OPTIONS, "device": "abacus"}, (), "abacus"),
        (OPTIONS, (Path("/not/mounted/here"),), "worker-0: /not/mounted/here is no folder"),
    ],
)
def test_workers_that_cannot_take_part_end_the_run_and_say_why(
    tmp_path: Path,
    archive: Path,
    package_folder: Path,
    options: dict[str, Any],
    folders: tuple[Path, ...],
    message: str,
) -> None:
    cluster = MemoryCluster((package_folder,), 1, options, folders=folders)
    with pytest.raises(ServiceError, match=message):
        list(segment_archive(FolderSource(archive), predictor=cluster, out_dir=tmp_path / "out"))
    assert not persistent._pools, "the next run would get a pool that cannot work"
    assert {end[0] for end in ends(tmp_path / "out").values()} <= {"pending", "refused"}
