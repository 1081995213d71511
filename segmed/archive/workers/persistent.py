"""Persistent worker pool of a machine of a cluster: the model is loaded once for many runs.

Segmenting goes on in worker processes of their own, as on the driver's machine: a deadly study is
tried alone and refused there, and the cluster's process goes on.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from segmed.archive.job import Job, Result
from segmed.archive.workers.engine import WorkerEngine
from segmed.archive.workers.messages import FETCHES
from segmed.archive.workers.setup import Setup

IDLE_S = 300.0
"""Time for which a pool without work keeps the model in memory, in s."""


class PersistentPool:
    """Worker processes that several runs share.

    Args:
        setup: What they need.
        workers: How many.
    """

    def __init__(self, setup: Setup, workers: int) -> None:
        self.runs = 0
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
        """Let a run be done with this pool; the last one leaves it to end when none comes."""
        with _LOCK:
            self.runs -= 1
            if self.runs == 0:
                self._timer = threading.Timer(IDLE_S, _dismiss, (self,))
                self._timer.daemon = True
                self._timer.start()

    def join(self) -> None:
        """Begin a run; called with the lock held."""
        self.runs += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """End the workers."""
        self.fetches.shutdown(wait=False, cancel_futures=True)
        self._engine.close()
        self._results.put(None)

    def _sort(self) -> None:
        """In a thread: give each result to the run that waits for it; a failure to all."""
        while (report := self._results.get()) is not None:
            with self._lock:
                if isinstance(report, Result):
                    waiting = [self._inboxes.pop(report.key)] if report.key in self._inboxes else []
                else:
                    waiting = list({id(inbox): inbox for inbox in self._inboxes.values()}.values())
                    self._inboxes.clear()
            for inbox in waiting:
                inbox.put(report)
            if not isinstance(report, Result):
                _forget(self)


_LOCK = threading.Lock()
_pools: dict[str, PersistentPool] = {}


def pool_for(setup: Setup, workers: int) -> PersistentPool:
    """The pool with this model, begun if there is none; one with another model ends when free.

    A model is identified by its hash, which `writing` has, wherever its package is.

    Args:
        setup: What the worker processes need.
        workers: How many.
    """
    name = repr((replace(setup, packages=()), workers))
    with _LOCK:
        idle = [other for other, pool in _pools.items() if other != name and pool.runs == 0]
        dismissed = [_pools.pop(other) for other in idle]
        if name not in _pools:
            _pools[name] = PersistentPool(setup, workers)
        pool = _pools[name]
        pool.join()
    for other in dismissed:
        other.close()
    return pool


def _forget(pool: PersistentPool) -> None:
    """Let the next run begin a new pool."""
    with _LOCK:
        for name in [name for name, known in _pools.items() if known is pool]:
            del _pools[name]


def _dismiss(pool: PersistentPool) -> None:
    """End a pool that nothing came for."""
    with _LOCK:
        if pool.runs > 0:
            return
    _forget(pool)
    pool.close()


def close_idle_pools() -> None:
    """End all idle pools of this process."""
    for pool in list(_pools.values()):
        _dismiss(pool)
