"""The long task of a Dask worker in an archive run, and its connection to the driver.

Messages go through two queues of the Dask scheduler, so that neither side needs a port of its own.
Imports neither Prefect nor MLflow: a worker does without them.
"""

from __future__ import annotations

import pickle
import queue
import threading
import uuid
from collections.abc import Callable
from typing import Any

from distributed import Queue, get_client, secede

from segmed.archive.workers.messages import FromDriver, FromWorker, Gone, WorkerTerms
from segmed.archive.workers.pulling import serve_studies

TICK_S = 10.0
"""Time between two signs of life, in s."""

SILENT_S = 120.0
"""Silence after which the other side is taken for lost, in s."""

END = "end"
TICK = "tick"


def pull_studies(terms: bytes, inbox: str, address: str) -> None:
    """Take part in a run until its driver ends it or is gone; the long task of a worker.

    Args:
        terms: The pickled `WorkerTerms`.
        inbox: Name of the driver's queue.
        address: Address of this worker, as the scheduler lists it.
    """
    secede()  # type: ignore[no-untyped-call]  # the thread is free for other runs
    ours: WorkerTerms = pickle.loads(terms)  # noqa: S301 - Dask's own messages are pickles
    link = QueueLink(get_client(), inbox, address)
    try:
        serve_studies(ours, link)
    finally:
        link.close()


class QueueLink:
    """Connection of a worker to its driver over queues of the scheduler.

    Args:
        client: The worker's client.
        inbox: Name of the driver's queue.
        address: Address of the worker.
    """

    def __init__(self, client: Any, inbox: str, address: str) -> None:
        self.name = f"{address} {uuid.uuid4().hex}"
        self._outbox: queue.Queue[FromWorker] = queue.Queue()
        self._requests: queue.Queue[FromDriver | str] = queue.Queue()
        self._incoming = open_queue(queue_of(inbox, self.name), client)
        self._inbox = open_queue(inbox, client)
        self._is_open = True
        self._threads = [
            threading.Thread(target=act, name=f"segmed-{act.__name__.strip('_')}", daemon=True)
            for act in (self._send_all, self._receive_all)
        ]
        for thread in self._threads:
            thread.start()

    def send(self, message: FromWorker) -> None:
        """Send a message, without waiting."""
        self._outbox.put(message)

    def receive(self) -> FromDriver | None:
        """Wait for a request; None once the driver has ended the run, or was silent too long."""
        while True:
            try:
                request = self._requests.get(timeout=SILENT_S)
            except queue.Empty:
                return None
            if request == END:
                return None
            if not isinstance(request, str):
                return request

    def close(self) -> None:
        """Send the remaining messages, sign off, and end the threads."""
        self._is_open = False
        self._outbox.put(Gone())
        _quietly(lambda: self._incoming.put(pickle.dumps([END])))
        for thread in self._threads:
            thread.join()
        _quietly(self._inbox.close)
        _quietly(self._incoming.close)

    def _send_all(self) -> None:
        """In a thread: send messages, several at once if they are there, and signs of life."""
        while True:
            messages = batch_of(self._outbox, TICK_S)
            parcel = pickle.dumps((self.name, messages))
            if not _quietly(lambda parcel=parcel: self._inbox.put(parcel)):  # type: ignore[misc]  # bound now
                self._requests.put(END)
                return
            if any(isinstance(message, Gone) for message in messages):
                return

    def _receive_all(self) -> None:
        """In a thread: receive requests, until our own last one."""
        while self._is_open:
            received: list[bytes] = []
            if not _quietly(lambda received=received: received.append(self._incoming.get())):  # type: ignore[misc]  # bound now
                self._requests.put(END)
                return
            for request in pickle.loads(received[0]):  # noqa: S301 - as above
                self._requests.put(request)


def open_queue(name: str, client: Any) -> Any:
    """A queue of the scheduler, under a name."""
    return Queue(name, client=client)  # type: ignore[no-untyped-call]  # Dask's own


def queue_of(inbox: str, worker: str) -> str:
    """Name of the queue that a worker reads."""
    return f"{inbox} {worker}"


def batch_of(outbox: queue.Queue[Any], timeout_s: float) -> list[Any]:
    """All messages that are there, at least one; none after a time without any."""
    try:
        batch = [outbox.get(timeout=timeout_s)]
    except queue.Empty:
        return []
    while not outbox.empty():
        batch.append(outbox.get())
    return batch


def _quietly(act: Callable[[], object]) -> bool:
    """Do something over the connection; returns whether the connection is still there."""
    try:
        act()
    except (OSError, TimeoutError, RuntimeError, KeyError):
        return False
    return True
