"""A network in memory: workers are threads, messages are pickled as on a real one."""

from __future__ import annotations

import pickle
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from segmed.archive.job import Result
from segmed.archive.workers.messages import FromDriver, FromWorker, Gone, WorkerTerms
from segmed.archive.workers.pulling import serve_studies


@dataclass
class MemoryLink:
    """A worker's end."""

    name: str
    inbox: queue.Queue[Any]
    requests: queue.Queue[Any] = field(default_factory=queue.Queue)
    sent: list[FromWorker] = field(default_factory=list)
    is_cut: bool = False

    def send(self, message: FromWorker) -> None:
        self.sent.append(message)
        if not self.is_cut:
            self.inbox.put((self.name, pickle.dumps(message)))

    def receive(self) -> FromDriver | None:
        message = self.requests.get()
        return None if message is None else pickle.loads(message)


class MemoryHub:
    """The driver's end; `add` begins a worker, `cut` is a worker's death.

    Args:
        terms: Terms of the workers.
        workers: How many there are at the start.
    """

    def __init__(self, terms: WorkerTerms, workers: int) -> None:
        self._terms = pickle.dumps(terms)
        self._inbox: queue.Queue[Any] = queue.Queue()
        self.links: dict[str, MemoryLink] = {}
        self.most_held = 0
        self._threads: list[threading.Thread] = []
        for _ in range(workers):
            self.add()

    @property
    def num_workers(self) -> int:
        return len(self.links)

    def add(self) -> None:
        link = MemoryLink(f"worker-{len(self.links)}", self._inbox)
        self.links[link.name] = link
        thread = threading.Thread(target=serve_studies, args=(pickle.loads(self._terms), link))
        self._threads.append(thread)
        thread.start()

    def cut(self, name: str) -> None:
        self.links[name].is_cut = True
        self.links[name].requests.put(None)
        self._inbox.put((name, pickle.dumps(Gone())))

    def receive(self) -> Sequence[tuple[str, FromWorker]] | None:
        message = self._inbox.get()
        return None if message is None else [(message[0], pickle.loads(message[1]))]

    def send(self, orders: Sequence[tuple[str, FromDriver]]) -> None:
        for worker, order in orders:
            self.links[worker].requests.put(pickle.dumps(order))

    def close(self) -> None:
        self._inbox.put(None)
        for link in self.links.values():
            link.requests.put(None)
        for thread in self._threads:
            thread.join()

    def done_by(self, name: str) -> list[str]:
        """Keys of the studies that a worker has done."""
        return [one.key for one in self.links[name].sent if isinstance(one, Result)]
