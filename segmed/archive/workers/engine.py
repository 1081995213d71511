"""Segment studies in worker processes: a study that kills its process does not stop the run."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import segmed
from segmed.archive.engine import IN_STAGES, Results
from segmed.archive.identifying import Identifier, ThreadIdentifier
from segmed.archive.job import Job, Result
from segmed.archive.workers.pull_queue import PullQueue
from segmed.archive.workers.setup import GPU_FAULT_STATUS, Ready, Setup, on_device, sharing
from segmed.errors import ServiceError
from segmed.inference.pipeline import READ_AHEAD
from segmed.outcomes import GPU_FAULT, GPU_FAULT_TEXT

IN_HAND = IN_STAGES + READ_AHEAD
"""Jobs of one worker at a time: read, segmented and written at once, and some waiting."""

END_WAIT_S = 10.0

HOME = Path(segmed.__file__).parent.parent
"""Folder of this `segmed`; a worker looks there last, in case it is not installed."""

START = (
    "import runpy, sys; sys.path.append(sys.argv[1]); "
    "runpy.run_module('segmed.archive.workers.worker', run_name='__main__')"
)

_DEATHS = (EOFError, ConnectionError, OSError)


class WorkerDied(Exception):  # noqa: N818 - an event that a slot acts upon, not an error of ours
    """A worker process ended, or did not answer in time, with jobs in hand."""


class Worker:
    """One worker process and the socket to it.

    Args:
        setup: What it needs to begin.
        timeout_s: Longest time without a result while it has a job, in s; None for ever.
    """

    def __init__(self, setup: Setup, timeout_s: float | None) -> None:
        ours, theirs = socket.socketpair()
        self._timeout_s = timeout_s
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, str(HOME), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._connection = Connection(ours.detach())
        try:
            self._connection.send(setup)
            ready: Ready = self._connection.recv()
        except _DEATHS as error:
            self.end()
            raise ServiceError(
                f"a worker process ended at its start ({self.how_it_ended()}); "
                "see its message above"
            ) from error
        if ready.fault:
            self.end()
            raise ServiceError(f"a worker process cannot start: {ready.fault}")

    def send(self, job: Job) -> None:
        """Give the worker a job.

        Raises:
            WorkerDied: It is gone.
        """
        try:
            self._connection.send(job)
        except _DEATHS as error:
            raise WorkerDied from error

    def result(self) -> Result:
        """Wait for a result.

        Raises:
            WorkerDied: It is gone, or gave none in time and was ended.
        """
        try:
            if not self._connection.poll(self._timeout_s):
                self._process.kill()
                raise WorkerDied
            result: Result = self._connection.recv()
        except _DEATHS as error:
            raise WorkerDied from error
        return result

    def end(self) -> None:
        """Close the socket, which ends the process, and make sure of it."""
        self._connection.close()
        try:
            self._process.wait(END_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def lost_its_gpu(self) -> bool:
        """Return whether an ended process left because its GPU failed."""
        return self._process.wait() == GPU_FAULT_STATUS

    def how_it_ended(self) -> str:
        """Exit status or signal of an ended process, in words."""
        status = self._process.wait()
        return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


class WorkerEngine:
    """Worker processes that load the model once each.

    When a worker dies, each study it held is tried once more, alone in a fresh worker; one that
    kills that one too is refused, or has failed if the GPU failed both times. A study is never
    blamed for the death of the driver.

    Args:
        setup: What every worker needs.
        results: Where results go.
        workers: How many processes.
        timeout_s: Longest time without a result while a worker has a job, in s; None for ever.
        devices: Devices that the workers take in turn, instead of the one that `setup` names.
    """

    fetches = False

    def __init__(
        self,
        setup: Setup,
        results: Results,
        *,
        workers: int = 1,
        timeout_s: float | None = None,
        devices: Sequence[str] = (),
    ) -> None:
        self.capacity = workers * IN_HAND
        self._results = results
        self._timeout_s = timeout_s
        self.identifier: Identifier | None = (identifier := ThreadIdentifier(workers))
        self._end_identifying = identifier.close
        self._is_stopping = False
        self._jobs: PullQueue[Job] = PullQueue()
        self._news = threading.Condition()
        """Guards the queue; notified of a new job, of a free place, and of the end."""
        self._threads = [
            threading.Thread(
                target=self._slot,
                args=(f"{number}", _setup_of(setup, number, workers, devices)),
                name=f"segmed-worker-{number}",
                daemon=True,
            )
            for number in range(workers)
        ]
        for number in range(workers):
            self._jobs.join(f"{number}", IN_HAND)
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Take a job in hand."""
        with self._news:
            self._jobs.add(job.key, job)
            self._news.notify_all()

    def close(self) -> None:
        """End the workers after their current studies."""
        with self._news:
            self._is_stopping = True
            self._news.notify_all()
        self._end_identifying()
        for thread in self._threads:
            thread.join()

    def _slot(self, name: str, setup: Setup) -> None:
        """In a thread: one worker process after the other, which pull jobs from the queue."""
        worker: Worker | None = None
        held: dict[str, Job] = {}
        try:
            while True:
                try:
                    if not self._top_up(name, worker, held):
                        return
                    if worker is None:
                        worker = Worker(setup, self._timeout_s)
                        self._send_all(worker, held)
                        continue  # jobs may have come meanwhile
                    result = worker.result()
                    held.pop(result.key)
                    self._report(name, result)
                except WorkerDied:
                    assert worker is not None
                    worker.end()
                    worker = None
                    self._try_alone(name, setup, list(held.values()))
                    held.clear()
        except ServiceError as error:
            self._results.put(error)
        finally:
            if worker is not None:
                worker.end()

    def _top_up(self, name: str, worker: Worker | None, held: dict[str, Job]) -> bool:
        """Fill a worker's hands; wait only while they are empty. False: there will be no more."""
        while (job := self._pulled(name, can_wait=not held)) is not None:
            held[job.key] = job
            if worker is not None:
                worker.send(job)
        return not self._is_stopping

    def _pulled(self, name: str, *, can_wait: bool) -> Job | None:
        """The next job of a worker; None if there is none, or none any more."""
        with self._news:
            if can_wait:
                self._news.wait_for(lambda: self._is_stopping or self._jobs.num_waiting > 0)
            return None if self._is_stopping else self._jobs.pull(name)

    def _report(self, name: str, result: Result) -> None:
        with self._news:
            self._jobs.settle(name, result.key)
            self._news.notify_all()
        self._results.put(result)

    def _send_all(self, worker: Worker, held: dict[str, Job]) -> None:
        for job in held.values():
            worker.send(job)

    def _try_alone(self, name: str, setup: Setup, suspects: list[Job]) -> None:
        """Give each study that a dead worker held one more chance, alone."""
        worker: Worker | None = None
        for job in suspects:
            try:
                worker = worker or Worker(setup, self._timeout_s)
                worker.send(job)
                self._report(name, worker.result())
            except WorkerDied:
                assert worker is not None
                worker.end()
                self._report(name, _died_twice(job, worker))
                worker = None
        if worker is not None:
            worker.end()


def _died_twice(job: Job, worker: Worker) -> Result:
    """Result of a study whose second process, too, ended: the data or the GPU is at fault."""
    if worker.lost_its_gpu():
        return Result(job.key, GPU_FAULT, f"in two processes: {GPU_FAULT_TEXT}")
    message = f"its process died twice ({worker.how_it_ended()}), the second time alone"
    return Result(job.key, "killed_process", message, refused=True)


def _setup_of(setup: Setup, number: int, workers: int, devices: Sequence[str]) -> Setup:
    """Setup of one of several workers: its device, and its part of the device's memory."""
    if not devices:
        return sharing(setup, workers)
    mine = number % len(devices)
    return on_device(sharing(setup, len(range(mine, workers, len(devices)))), devices[mine])
