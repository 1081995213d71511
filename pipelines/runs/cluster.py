"""An archive run over many machines: its batches go to a Dask cluster, as tasks of the flow.

The driver alone walks the archive, writes the ledger and delivers; the machines read (or download),
segment and write outputs into the folder that all of them share. A batch whose machine dies is
done again by another one: outputs appear whole, and two of them are the same bytes.
"""

from __future__ import annotations

import contextvars
import queue
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext

from segmed.archive.engine import Results, StudyEngine
from segmed.archive.job import Job, Result, failure_result
from segmed.archive.pacs.delivery import RetryPolicy
from segmed.archive.study import StudySource
from segmed.archive.workers.persistent import StudyBatch, segment_batch
from segmed.archive.workers.setup import Setup
from segmed.errors import ServiceError, UsageError
from segmed.io.atomic import whole_folder

PIECE = 8
"""Most studies a task: one alone would spend more on the task than on the study."""

PIECES_AHEAD = 2
"""Pieces in hand for each place of the cluster: one is worked on, one waits there."""

GATHER_S = 0.1
"""Longest wait of a batch that is not full."""

FIRST_WORKER_S = 120.0
"""How long a cluster without workers is waited for."""

LOST = "machine_lost"
"""Reason of a study whose machines died twice; the next run tries again."""


class Parcel:
    """A batch that Prefect does not look into."""

    def __init__(self, batch: StudyBatch) -> None:
        self.batch = batch


@task(name="segment-batch", task_run_name="studies from {name}", cache_policy=NO_CACHE)
def segment_parcel(parcel: Parcel, name: str) -> list[Result]:
    """On a machine of the cluster: segment some studies."""
    return segment_batch(parcel.batch)


@dataclass(frozen=True)
class Cluster:
    """A model to be loaded by the machines of the flow's Dask cluster.

    Attributes:
        packages: Folders of the packages, which all machines share.
        options: Options of the predictor.
        open_source: Opens a network source on the machine that fetches; None where files are
            shared.
        workers: Worker processes a machine.
        retry: How long networks are waited for.
    """

    packages: tuple[Path, ...]
    options: dict[str, Any] = field(default_factory=dict)
    open_source: Callable[[], StudySource] | None = None
    workers: int = 1
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def engine(self, setup: Setup, results: Results) -> StudyEngine:
        """Return the engine that sends batches to the cluster, inside a flow with Dask's runner."""
        batch = StudyBatch(setup, (), self.open_source, self.retry, self.workers)
        return ClusterEngine(batch, results, client_of_flow())


def client_of_flow() -> Any:
    """The Dask client of the flow that runs here.

    Raises:
        UsageError: No flow runs here, or its tasks do not go to Dask.
        ServiceError: The cluster has no worker.
    """
    context = FlowRunContext.get()
    client = getattr(context.task_runner, "client", None) if context else None
    if client is None:
        raise UsageError("segmenting on a cluster needs a flow with a DaskTaskRunner")
    try:
        client.wait_for_workers(1, timeout=FIRST_WORKER_S)
    except TimeoutError as error:
        raise ServiceError(
            f"the Dask scheduler has no worker after {FIRST_WORKER_S:.0f} s; start some with "
            "`dask worker ADDRESS`"
        ) from error
    return client


class ClusterEngine:
    """Sends jobs in batches, and books what comes back.

    A batch that fails is sent once more, each of its studies alone.

    Args:
        pattern: A batch without jobs.
        results: Where results go.
        client: The Dask client.
    """

    def __init__(self, pattern: StudyBatch, results: Results, client: Any) -> None:
        self._pattern = pattern
        self._results = results
        self._client = client
        self._places = self._count_places()
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._in_flight: dict[Any, StudyBatch] = {}
        self._free = threading.Condition()
        self._is_stopping = False
        self._context = contextvars.copy_context()
        """Of the flow: Dask's threads have no access to it."""
        self._thread = threading.Thread(target=self._dispatch, name="segmed-cluster", daemon=True)
        self._thread.start()

    @property
    def fetches(self) -> bool:
        """Return whether the machines open the source themselves."""
        return self._pattern.open_source is not None

    @property
    def capacity(self) -> int:
        """Jobs worth having in hand at once; grows with the cluster."""
        return self._places * PIECES_AHEAD * PIECE

    def submit(self, job: Job) -> None:
        """Take a job in hand."""
        self._jobs.put(job)

    def close(self) -> None:
        """End the dispatching; batches that are worked on end by themselves."""
        self._is_stopping = True
        self._jobs.put(None)
        with self._free:
            pending = list(self._in_flight)
            self._in_flight.clear()
            self._free.notify_all()
        for future in pending:
            future.wrapped_future.cancel()
        self._thread.join()

    def _count_places(self) -> int:
        return max(1, int(sum(self._client.nthreads().values())))

    def _dispatch(self) -> None:
        """In a thread: send a batch whenever there are jobs and a place for it."""
        try:
            while (first := self._jobs.get()) is not None:
                self._places = self._count_places()
                self._wait_for_a_place()
                if self._is_stopping:
                    return
                self._send(self._batch_from(first))
        except (OSError, TimeoutError) as error:
            self._results.put(ServiceError(f"the Dask scheduler does not answer: {error}"))

    def _wait_for_a_place(self) -> None:
        with self._free:
            self._free.wait_for(
                lambda: self._is_stopping or len(self._in_flight) < PIECES_AHEAD * self._places
            )

    def _batch_from(self, first: Job) -> StudyBatch:
        """The first job and some more: large batches first, small ones at the end."""
        share = -(-(1 + self._jobs.qsize()) // (PIECES_AHEAD * self._places))
        jobs = [first]
        while len(jobs) < min(PIECE, max(1, share)):
            try:
                job = self._jobs.get(timeout=GATHER_S)
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)
                break
            jobs.append(job)
        return replace(self._pattern, jobs=tuple(jobs))

    def _send(self, batch: StudyBatch) -> None:
        name = batch.jobs[0].study.name
        future = self._context.copy().run(segment_parcel.submit, Parcel(batch), name)
        with self._free:
            self._in_flight[future] = batch
        future.add_done_callback(self._receive)

    def _receive(self, future: Any) -> None:
        """In a thread of Dask's: book a batch that came back, or send its studies again."""
        with self._free:
            batch = self._in_flight.pop(future, None)
            self._free.notify_all()
        if batch is None:
            return
        try:
            for result in future.result():
                self._results.put(result)
        except ServiceError as error:
            self._results.put(error)
        except CancelledError:
            self._results.put(ServiceError("the Dask scheduler went away; start again to go on"))
        except Exception as error:  # noqa: BLE001 - one batch fails, the rest go on
            self._again(batch, error)

    def _again(self, batch: StudyBatch, error: Exception) -> None:
        if len(batch.jobs) > 1:
            for job in batch.jobs:
                self._send(replace(batch, jobs=(job,)))
            return
        result = failure_result(batch.jobs[0].key, error, batch.jobs[0].study.files)
        if type(error).__name__ == "KilledWorker":
            message = "the machines that worked on it died; the next run tries again"
            result = Result(result.key, LOST, message)
        self._results.put(result)


def shared_packages(paths: Sequence[Path], hashes: Sequence[str], shared: Path) -> tuple[Path, ...]:
    """Packages in a folder that all machines share, each copied once, whole or not at all.

    Args:
        paths: Where they are on this machine.
        hashes: Their hashes.
        shared: The folder.
    """
    shared.mkdir(parents=True, exist_ok=True)
    places = []
    for path, digest in zip(paths, hashes, strict=True):
        place = shared / digest
        if not place.exists():
            with whole_folder(place) as draft:
                shutil.copytree(path, draft, dirs_exist_ok=True)
        places.append(place)
    return tuple(places)
