"""Messages between the driver of a run and workers that pull studies from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from segmed.archive.engine import IN_STAGES
from segmed.archive.identifying import Answer, Question
from segmed.archive.job import Job, Result
from segmed.archive.pacs.delivery import RetryPolicy
from segmed.archive.study import StudySource
from segmed.archive.workers.setup import Setup

FETCHES = 2
"""Studies that a machine fetches at once, and identifies at once."""

WAITING = 1
"""Studies that wait on a machine, so that none of its stages waits for the driver."""


@dataclass(frozen=True)
class WorkerTerms:
    """Terms of a worker's part in a run, sent to it at its start.

    Attributes:
        setup: What a worker process needs before its first job; paths that all machines share.
        open_source: Opens the source on the machine that fetches; None where files are shared.
        retry: How long networks are waited for.
        workers: Worker processes a machine.
        folders: Folders that a machine must have under the same path.
    """

    setup: Setup
    open_source: Callable[[], StudySource] | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    workers: int = 1
    folders: tuple[Path, ...] = ()

    @property
    def places(self) -> int:
        """Studies that a machine has in hand: in its stages, under way to it, and waiting."""
        fetched = FETCHES if self.open_source is not None else 0
        return self.workers * IN_STAGES + fetched + WAITING


@dataclass(frozen=True)
class Ticketed:
    """A question about the source.

    Attributes:
        ticket: Its number.
        question: The question.
    """

    ticket: int
    question: Question


@dataclass(frozen=True)
class Answered:
    """Answer to a question.

    Attributes:
        ticket: Its number.
        answer: The answer, or why there is none.
    """

    ticket: int
    answer: Answer | Exception


@dataclass(frozen=True)
class Failed:
    """A worker cannot take part at all.

    Attributes:
        message: The reason.
    """

    message: str


@dataclass(frozen=True)
class Hello:
    """First word of a worker: it asks for as many studies as the terms allow."""


@dataclass(frozen=True)
class Gone:
    """A worker is lost, or has left."""


FromDriver = Job | Ticketed
FromWorker = Hello | Gone | Failed | Answered | Result
