"""A process that trains one network and scores it, one step after the other."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Literal

from pipelines.comparing.jobs import TrainJob
from pipelines.comparing.progress import REPORT, progress, report
from segmed.errors import SegmedError, TrainingError
from segmed.training import EpochResult

FRESH = multiprocessing.get_context("spawn")
"""Children start anew: PyTorch's threads and random numbers belong to one process each."""

OnEpoch = Callable[[EpochResult], None]
Step = Literal["train", "score"]


class TrainingProcess:
    """A child process for the steps of one training; its start takes seconds of imports.

    Args:
        threads: Threads of the training.
    """

    def __init__(self, threads: int) -> None:
        self._messages, theirs = FRESH.Pipe()
        level = progress.getEffectiveLevel()
        self._child = FRESH.Process(target=_serve, args=(theirs, threads, level))
        self._child.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._child.pid or 0

    def run(self, step: Step, job: TrainJob, on_epoch: OnEpoch) -> None:
        """Run a step to its end; its results are files.

        Raises:
            SegmedError: An error of the step.
            TrainingError: The process died.
            KeyboardInterrupt: The step was stopped, and saved.
        """
        with suppress(ConnectionError):  # a dead process is found while its messages are read
            self._messages.send((step, job))
        while True:
            kind, content = self._next(job)
            if kind == "epoch":
                on_epoch(content)
            elif kind == "progress":
                line, state, level = content
                report(line, state, level=level)
            elif kind == "failed":
                raise content
            elif kind == "stopped":
                raise KeyboardInterrupt(content)
            else:
                return

    def _next(self, job: TrainJob) -> tuple[str, Any]:
        """The next message of the child."""
        try:
            message: tuple[str, Any] = self._messages.recv()
        except (EOFError, ConnectionError):
            raise TrainingError(
                f"the process that trained {job.model} fold {job.fold} died; if the machine "
                "ran out of memory, train fewer side by side; continue with --resume"
            ) from None
        return message

    def stop(self) -> None:
        """Let a training save and end."""
        self._child.terminate()

    def end(self) -> None:
        """Let the process end, and wait for it."""
        self._messages.close()
        self._child.join()


class _ToParent(logging.Handler):
    """Sends log records to the process that started this one, which logs them."""

    def __init__(self, messages: Connection) -> None:
        super().__init__()
        self._messages = messages
        self._turn = threading.Lock()  # threads that read cases log, too

    def emit(self, record: logging.LogRecord) -> None:
        """Send line, state and level."""
        self.send("progress", (record.getMessage(), getattr(record, REPORT, None), record.levelno))

    def send(self, kind: str, content: Any) -> None:
        """Send a message, if the parent still listens."""
        with self._turn, suppress(ConnectionError):
            self._messages.send((kind, content))


def _serve(messages: Connection, threads: int, level: int) -> None:
    """Run the steps that the parent asks for, until it closes the connection."""
    import torch  # noqa: PLC0415 - the child's own

    torch.set_num_threads(threads)
    parent = _ToParent(messages)
    logging.getLogger().addHandler(parent)
    progress.setLevel(level)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, ConnectionError, KeyboardInterrupt):
        while True:
            step, job = messages.recv()
            parent.send(*_outcome(step, job, parent))


def _outcome(step: Step, job: TrainJob, parent: _ToParent) -> tuple[str, Any]:
    """Train or score in the child process; returns the last message about it."""
    from pipelines.comparing.training_job import (  # noqa: PLC0415 - takes seconds
        score_held_out,
        train_network,
    )

    try:
        if step == "train":
            train_network(job, lambda result: parent.send("epoch", result))
        else:
            score_held_out(job)
    except SegmedError as error:
        return "failed", type(error)(str(error))
    except KeyboardInterrupt as stop:
        return "stopped", str(stop)
    return "done", None


def _end_with_parent() -> None:
    """Save and end if the process that started this one has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
