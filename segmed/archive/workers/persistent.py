"""Persistent worker pool of a machine for batches of an archive: the model is loaded once.

A scheduler of some cluster calls `segment_batch` in a process on that machine, one batch after the
other or two at once. Segmenting goes on in worker processes of their own, as on the driver's
machine: a deadly study is tried alone and refused there, and the cluster's process goes on.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segmed.archive.job import Job, Result
from segmed.archive.pacs.delivery import RetryPolicy
from segmed.archive.pacs.fetching import fetched
from segmed.archive.study import StudySource
from segmed.archive.workers.engine import WorkerEngine
from segmed.archive.workers.setup import Setup
from segmed.io.scratch import scratch_space

IDLE_S = 300.0
"""Time for which a pool without work keeps the model in memory, in s."""

FETCHES = 2
"""Studies that a machine fetches at once, over all the batches it has."""


@dataclass(frozen=True)
class StudyBatch:
    """Some studies of an archive, as they are sent to another machine.

    Attributes:
        setup: What a worker needs before its first job; paths that all machines share.
        jobs: What to segment; studies of a network source come without files.
        open_source: Opens the source on the machine that fetches; None where files are shared.
        retry: How long networks are waited for.
        workers: Worker processes a machine.
    """

    setup: Setup
    jobs: tuple[Job, ...]
    open_source: Callable[[], StudySource] | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    workers: int = 1


def segment_batch(batch: StudyBatch) -> list[Result]:
    """Segment some studies on this machine, the pool that is here going on with them.

    Raises:
        ServiceError: The worker processes cannot start.
    """
    pool = _pool_for(batch)
    try:
        with scratch_space() as spool:
            return _run(batch, pool, spool)
    finally:
        pool.leave()


def _run(batch: StudyBatch, pool: PersistentPool, spool: Path) -> list[Result]:
    inbox: queue.Queue[Any] = queue.Queue()

    def begin(number: int, job: Job) -> None:
        got: Job | Result = job
        if not job.study.channels and batch.open_source is not None:
            folder = spool / str(number)
            folder.mkdir()
            got = fetched(job, batch.open_source(), folder, batch.retry)
        if isinstance(got, Job):
            pool.submit(got, inbox)
        else:
            inbox.put(got)

    for number, job in enumerate(batch.jobs):
        pool.fetches.submit(begin, number, job)
    return [_result(inbox.get()) for _ in batch.jobs]


def _result(report: Any) -> Result:
    if isinstance(report, Exception):
        raise report
    assert isinstance(report, Result)
    return report


class PersistentPool:
    """Worker processes that several batches share.

    Args:
        setup: What they need.
        workers: How many.
    """

    def __init__(self, setup: Setup, workers: int) -> None:
        self.batches = 0
        self.fetches = ThreadPoolExecutor(FETCHES, "segmed-fetch")
        self._timer: threading.Timer | None = None
        self._inboxes: dict[str, queue.Queue[Any]] = {}
        self._lock = threading.Lock()
        self._results: queue.Queue[Any] = queue.Queue()
        self._engine = WorkerEngine(setup, self._results, workers=workers)
        threading.Thread(target=self._sort, name="segmed-sort", daemon=True).start()

    def submit(self, job: Job, inbox: queue.Queue[Any]) -> None:
        """Segment one study; its result goes to `inbox`."""
        with self._lock:
            self._inboxes[job.key] = inbox
        self._engine.submit(job)

    def leave(self) -> None:
        """A batch is done with this pool; the last one leaves it to end when nothing comes."""
        with _LOCK:
            self.batches -= 1
            if self.batches == 0:
                self._timer = threading.Timer(IDLE_S, _dismiss, (self,))
                self._timer.daemon = True
                self._timer.start()

    def join(self) -> None:
        """A batch begins; called with the lock held."""
        self.batches += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """End the workers."""
        self.fetches.shutdown(wait=False, cancel_futures=True)
        self._engine.close()
        self._results.put(None)

    def _sort(self) -> None:
        """In a thread: give each result to the batch that waits for it; a failure to all."""
        while (report := self._results.get()) is not None:
            with self._lock:
                if isinstance(report, Result):
                    waiting = [self._inboxes.pop(report.key)]
                else:
                    waiting = list({id(inbox): inbox for inbox in self._inboxes.values()}.values())
                    self._inboxes.clear()
            for inbox in waiting:
                inbox.put(report)
            if not isinstance(report, Result):
                _forget(self)


_LOCK = threading.Lock()
_pools: dict[str, PersistentPool] = {}


def _pool_for(batch: StudyBatch) -> PersistentPool:
    """The pool with this model, begun if there is none; one with another model ends when free.

    A model is identified by its hash, which `writing` has, wherever its package is.
    """
    name = repr((replace(batch.setup, packages=()), batch.workers))
    with _LOCK:
        idle = [other for other, pool in _pools.items() if other != name and pool.batches == 0]
        dismissed = [_pools.pop(other) for other in idle]
        if name not in _pools:
            _pools[name] = PersistentPool(batch.setup, batch.workers)
        pool = _pools[name]
        pool.join()
    for other in dismissed:
        other.close()
    return pool


def _forget(pool: PersistentPool) -> None:
    """Let the next batch begin a new pool."""
    with _LOCK:
        for name in [name for name, known in _pools.items() if known is pool]:
            del _pools[name]


def _dismiss(pool: PersistentPool) -> None:
    """End a pool that nothing came for."""
    with _LOCK:
        if pool.batches > 0:
            return
    _forget(pool)
    pool.close()


def close_idle_pools() -> None:
    """End all idle pools of this process."""
    for pool in list(_pools.values()):
        _dismiss(pool)
