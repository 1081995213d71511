"""Decisions of a driver: which worker gets which study, and what becomes of a lost worker's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from segmed.archive.identifying import Files, Question
from segmed.archive.job import Job, Result
from segmed.archive.study import Study, content_hash
from segmed.archive.workers.messages import (
    FETCHES,
    Answered,
    FromDriver,
    FromWorker,
    Gone,
    Hello,
    Ticketed,
)
from segmed.archive.workers.pull_queue import MOST_LOSSES, PullQueue
from segmed.errors import ServiceError

QUESTIONS = FETCHES + 1
"""Questions that a worker has in hand."""

REMEMBERED = 4096
"""Answered studies whose worker is remembered, since it has their files in memory."""

LOST = "machine_lost"
"""Reason of a study whose machines died too often; the next run tries again."""

LOST_TEXT = f"{MOST_LOSSES} machines died while they worked on it; the next run tries again"


class Dispatcher:
    """Hands out questions about the source and studies to segment, over two queues.

    Without threads, clock or network; not safe for several threads.

    Args:
        places: Studies that a worker has in hand.
        on_answer: Called with each answer, also if no worker was left to give it.
    """

    def __init__(self, places: int, on_answer: Callable[[Answered], None]) -> None:
        self._places = places
        self._on_answer = on_answer
        self._jobs: PullQueue[Job] = PullQueue()
        self._questions: PullQueue[Ticketed] = PullQueue()
        self._hashed_by: OrderedDict[str, str] = OrderedDict()

    def submit(self, job: Job) -> None:
        """Queue a study; the worker that has hashed it is preferred."""
        self._jobs.add(job.key, job, near=self._hashed_by.pop(job.study.content, ""))

    def ask(self, ticket: int, question: Question) -> None:
        """Queue a question."""
        self._questions.add(str(ticket), Ticketed(ticket, question))

    def hand_out(self) -> list[tuple[str, FromDriver]]:
        """Give what waits to workers with room."""
        return [*self._questions.hand_out(), *self._jobs.hand_out()]

    def receive(self, worker: str, message: FromWorker) -> Sequence[Result]:
        """Take note of a worker's message.

        Returns:
            Results to be booked; none from a worker that was taken for lost.
        """
        if isinstance(message, Hello):
            self._jobs.join(worker, self._places)
            self._questions.join(worker, QUESTIONS)
        elif isinstance(message, Gone):
            return self._give_up(worker)
        elif isinstance(message, Answered) and self._questions.settle(worker, str(message.ticket)):
            self._note_answer(worker, message)
        elif isinstance(message, Result) and self._jobs.settle(worker, message.key):
            return (message,)
        return ()

    def _note_answer(self, worker: str, message: Answered) -> None:
        digests = message.answer
        if not isinstance(digests, Exception) and digests and not isinstance(digests[0], Study):
            self._hashed_by[content_hash(digests)] = worker
            if len(self._hashed_by) > REMEMBERED:
                self._hashed_by.popitem(last=False)
        self._on_answer(message)

    def _give_up(self, worker: str) -> Sequence[Result]:
        for request in self._questions.leave(worker):
            is_file = isinstance(request.question, Files)
            error = OSError(None, LOST_TEXT) if is_file else ServiceError(LOST_TEXT)
            self._on_answer(Answered(request.ticket, error))
        return [Result(job.key, LOST, LOST_TEXT) for job in self._jobs.leave(worker)]
