"""An archive run over many machines: the workers of a Dask cluster pull its studies one by one.

The driver alone walks the archive, writes the ledger and delivers; the machines hash, read (or
download), segment and write outputs into the folder that all of them share. Each worker has one
long task for the whole run. Studies of a worker that dies go back to the driver's queue: outputs
appear whole, and two of them are the same bytes.
"""

from __future__ import annotations

import pickle
import queue
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect.context import FlowRunContext

from pipelines.runs.cluster_worker import (
    END,
    SILENT_S,
    TICK,
    TICK_S,
    batch_of,
    open_queue,
    pull_studies,
    queue_of,
)
from segmed.archive.engine import Results, StudyEngine
from segmed.archive.pacs.delivery import RetryPolicy
from segmed.archive.study import StudySource
from segmed.archive.workers.messages import Failed, FromDriver, FromWorker, Gone, Hello, WorkerTerms
from segmed.archive.workers.pull_engine import PullEngine
from segmed.archive.workers.setup import Setup
from segmed.errors import ServiceError, UsageError
from segmed.io.atomic import whole_folder

FIRST_WORKER_S = 120.0
"""Longest wait for the first worker of a cluster, in s."""

NO_WORKER_S = 600.0
"""Longest wait for a worker during a run that has none left, in s."""

LOOK_S = 1.0
"""Time between two looks at the list of workers, in s."""

END_S = 10.0
"""Longest wait for the workers' tasks at the end, in s."""


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
        folders: Folders that every machine must have under the same path.
    """

    packages: tuple[Path, ...]
    options: dict[str, Any] = field(default_factory=dict)
    open_source: Callable[[], StudySource] | None = None
    workers: int = 1
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    folders: tuple[Path, ...] = ()

    def engine(self, setup: Setup, results: Results) -> StudyEngine:
        """Return the engine whose workers are the cluster's, inside a flow with Dask's runner."""
        terms = WorkerTerms(setup, self.open_source, self.retry, self.workers, self.folders)
        return PullEngine(terms, results, DaskHub(client_of_flow(), terms))


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
        raise _no_worker(FIRST_WORKER_S) from error
    return client


class DaskHub:
    """Connection of the driver to the workers of a Dask cluster, over queues of its scheduler.

    A worker that joins the cluster during the run gets its task then. One that leaves the
    scheduler's list, or is silent too long, is lost; under the same address it may come again.

    Args:
        client: The Dask client.
        terms: Terms of the workers.
    """

    def __init__(self, client: Any, terms: WorkerTerms) -> None:
        self._client = client
        self._terms = pickle.dumps(terms)
        self._name = f"segmed-{uuid.uuid4().hex}"
        self._inbox = open_queue(self._name, client)
        self._received: queue.Queue[Sequence[tuple[str, FromWorker]] | Exception | None]
        self._received = queue.Queue()
        self._outbox: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._lock = threading.Lock()
        self._tasks: dict[str, Any] = {}
        """Future of the task at each address."""
        self._sessions: dict[str, _Session] = {}
        self._is_open = True
        self._last_there = time.monotonic()
        self.num_workers = len(client.nthreads())
        self._threads = [
            threading.Thread(target=self._guarded, args=(act,), daemon=True, name=f"segmed-{name}")
            for name, act in (
                ("inbox", self._receive_all),
                ("outbox", self._send_all),
                ("workers", self._look_after),
            )
        ]
        for thread in self._threads:
            thread.start()

    def receive(self) -> Sequence[tuple[str, FromWorker]] | None:
        """Wait for messages; None after `close`.

        Raises:
            ServiceError: There are no workers any more.
            OSError: The scheduler does not answer.
        """
        received = self._received.get()
        if isinstance(received, Exception):
            raise received
        return received

    def send(self, orders: Sequence[tuple[str, FromDriver]]) -> None:
        """Send to workers, without waiting."""
        for order in orders:
            self._outbox.put(order)

    def close(self) -> None:
        """End the part of all workers, and wait a little for their tasks."""
        self._is_open = False
        with self._lock:
            for name in self._sessions:
                self._outbox.put((name, END))
            tasks = list(self._tasks.values())
        self._outbox.put(("", END))
        self._received.put(None)
        deadline = time.monotonic() + END_S
        while time.monotonic() < deadline and not all(task.done() for task in tasks):
            time.sleep(0.05)
        if self._client.status == "running":
            for task in tasks:
                task.cancel()
            self._inbox.put(pickle.dumps(("", [])))  # wakes the thread that reads it
            for thread in self._threads:
                thread.join(END_S)
            self._inbox.close()

    def _guarded(self, act: Callable[[], None]) -> None:
        """In a thread: work until the end; the engine gets what stops it."""
        try:
            act()
        except Exception as error:  # noqa: BLE001 - the run that waits for results must end with it
            if self._is_open:
                self._received.put(
                    error if isinstance(error, ServiceError) else OSError(*error.args)
                )

    def _receive_all(self) -> None:
        while self._is_open:
            worker, messages = pickle.loads(self._inbox.get())  # noqa: S301 - as Dask's own messages
            with self._lock:
                if any(isinstance(message, Hello) for message in messages):
                    self._open(worker)
                session = self._sessions.get(worker)
                if session is None:
                    continue  # it was taken for lost
                session.heard = time.monotonic()
            if messages:
                self._received.put([(worker, message) for message in messages])
            if any(isinstance(message, Gone | Failed) for message in messages):
                self._lose(worker)

    def _open(self, worker: str) -> None:
        """Begin a session; one of the same address is over: the worker was started again."""
        address = worker.split(maxsplit=1)[0]
        for old in [name for name in self._sessions if name.split()[0] == address]:
            del self._sessions[old]
            self._received.put([(old, Gone())])
        incoming = open_queue(queue_of(self._name, worker), self._client)
        self._sessions[worker] = _Session(incoming)

    def _send_all(self) -> None:
        """Send what is there, to each worker in one parcel."""
        while True:
            orders = batch_of(self._outbox, TICK_S)
            parcels: dict[str, list[Any]] = {}
            for worker, message in orders:
                parcels.setdefault(worker, []).append(message)
            with self._lock:
                sessions = dict(self._sessions)
            for worker, session in sessions.items():
                if worker in parcels or session.ticked < time.monotonic() - TICK_S:
                    session.ticked = time.monotonic()
                    session.incoming.put(pickle.dumps(parcels.get(worker, [TICK])))
            if "" in parcels:
                return

    def _look_after(self) -> None:
        """Give each worker of the cluster its task, and notice those that are lost.

        Raises:
            ServiceError: There is none, and none came.
        """
        while self._is_open:
            present = self._client.nthreads()
            self.num_workers = len(present)
            self._begin_tasks(present)
            with self._lock:
                late = time.monotonic() - SILENT_S
                lost = [
                    name
                    for name, session in self._sessions.items()
                    if name.split()[0] not in present or session.heard < late
                ]
            for worker in lost:
                self._lose(worker)
            if present:
                self._last_there = time.monotonic()
            elif time.monotonic() - self._last_there > NO_WORKER_S:
                raise _no_worker(NO_WORKER_S)
            time.sleep(LOOK_S)

    def _begin_tasks(self, present: dict[str, int]) -> None:
        with self._lock:
            for address in [known for known in self._tasks if known not in present]:
                del self._tasks[address]  # the future is released
            for address in present:
                task = self._tasks.get(address)
                if task is None or task.done():
                    self._require_no_fault(address, task)
                    self._tasks[address] = self._client.submit(
                        pull_studies,
                        self._terms,
                        self._name,
                        address,
                        workers=[address],
                        allow_other_workers=False,
                        pure=False,
                    )

    def _require_no_fault(self, address: str, task: Any) -> None:
        """Check that a task that ended did so for the connection, or since its worker died.

        Raises:
            ServiceError: The worker cannot do the task at all.
        """
        if task is None or task.status != "error":
            return
        error = task.exception()
        if type(error).__name__ != "KilledWorker":
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise ServiceError(
                f"worker {address} cannot take part: {text}; does it have this segmed?"
            )

    def _lose(self, worker: str) -> None:
        with self._lock:
            session = self._sessions.pop(worker, None)
        if session is not None:
            session.incoming.put(pickle.dumps([END]))  # in case it is there after all
            session.incoming.close()
            self._received.put([(worker, Gone())])


@dataclass
class _Session:
    incoming: Any
    heard: float = field(default_factory=time.monotonic)
    ticked: float = field(default_factory=time.monotonic)


def _no_worker(waited_s: float) -> ServiceError:
    return ServiceError(
        f"the Dask scheduler has no worker after {waited_s:.0f} s; start some with "
        "`dask worker ADDRESS` and run again to continue"
    )


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
