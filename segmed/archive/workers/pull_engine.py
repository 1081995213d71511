"""Engine of a run whose workers, on many machines, pull its studies one by one."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from segmed.archive.engine import Results
from segmed.archive.identifying import Answer, Question
from segmed.archive.job import Job
from segmed.archive.study import StudySource
from segmed.archive.workers.dispatcher import QUESTIONS, Dispatcher
from segmed.archive.workers.messages import (
    Answered,
    Failed,
    FromDriver,
    FromWorker,
    Gone,
    WorkerTerms,
)
from segmed.errors import ServiceError

logger = logging.getLogger(__name__)


class Hub(Protocol):
    """Connection of a driver to its workers."""

    @property
    def num_workers(self) -> int:
        """Workers that are there, or are expected."""
        ...

    def receive(self) -> Sequence[tuple[str, FromWorker]] | None:
        """Wait for messages, each with the name of its worker; None after `close`.

        Raises:
            ServiceError: There are no workers any more.
            OSError: The connection broke.
        """
        ...

    def send(self, orders: Sequence[tuple[str, FromDriver]]) -> None:
        """Send to workers, without waiting; what a lost worker is sent goes nowhere."""
        ...

    def close(self) -> None:
        """End the part of all workers."""
        ...


class PullEngine:
    """Queues studies for workers, which identify and segment them; this process books results.

    Args:
        terms: Terms of the workers.
        results: Where results go.
        hub: The connection to the workers.
    """

    def __init__(self, terms: WorkerTerms, results: Results, hub: Hub) -> None:
        self.fetches = terms.open_source is not None
        self._places = terms.places
        self._results = results
        self._hub = hub
        self._lock = threading.Lock()
        self._tickets = itertools.count()
        self._answers: dict[int, Future[Answer]] = {}
        self._dispatcher = Dispatcher(terms.places, self._note_answer)
        self._thread = threading.Thread(target=self._listen, name="segmed-cluster", daemon=True)
        self._thread.start()

    @property
    def capacity(self) -> int:
        """Studies in the hands of all workers, and one a worker that waits here."""
        return max(1, self._hub.num_workers) * (self._places + 1)

    @property
    def identifier(self) -> PullEngine:
        """Workers answer questions too."""
        return self

    @property
    def ahead(self) -> int:
        """Questions worth asking at once."""
        return max(1, self._hub.num_workers) * QUESTIONS

    def submit(self, job: Job) -> None:
        """Queue a study."""
        with self._lock:
            self._dispatcher.submit(job)
            self._hub.send(self._dispatcher.hand_out())

    def ask(self, question: Question, source: StudySource) -> Future[Answer]:
        """Queue a question; the worker opens the source itself."""
        future: Future[Answer] = Future()
        with self._lock:
            ticket = next(self._tickets)
            self._answers[ticket] = future
            self._dispatcher.ask(ticket, question)
            self._hub.send(self._dispatcher.hand_out())
        return future

    def close(self) -> None:
        """End the part of the workers; what they have in hand is not waited for."""
        self._hub.close()
        self._thread.join()

    def _listen(self) -> None:
        """In a thread: take in what workers send, and hand out what they ask for."""
        try:
            while (messages := self._hub.receive()) is not None:
                self._take_in(messages)
        except (ServiceError, OSError) as error:
            text = f"the workers of the run are out of reach: {error}; run again to continue"
            failure = error if isinstance(error, ServiceError) else ServiceError(text)
            self._results.put(failure)

    def _take_in(self, messages: Sequence[tuple[str, FromWorker]]) -> None:
        with self._lock:
            for worker, message in messages:
                if isinstance(message, Failed):
                    self._results.put(
                        ServiceError(f"worker {worker.split()[0]}: {message.message}")
                    )
                elif isinstance(message, Gone):
                    logger.info("worker %s has left the run; its studies go back", worker)
                for result in self._dispatcher.receive(worker, message):
                    self._results.put(result)
            self._hub.send(self._dispatcher.hand_out())

    def _note_answer(self, message: Answered) -> None:
        future = self._answers.pop(message.ticket)
        if isinstance(message.answer, Exception):
            future.set_exception(message.answer)
        else:
            future.set_result(message.answer)
