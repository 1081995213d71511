"""Trainings side by side: each in a process of its own, on a device of its own."""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from pipelines.comparing.jobs import TrainJob
from pipelines.comparing.progress import REPORT, progress, report
from segmed.errors import SegmedError, TrainingError, UsageError
from segmed.training import EpochResult

FRESH = multiprocessing.get_context("spawn")
"""Children start anew: PyTorch's threads and random numbers belong to one process each."""

OnEpoch = Callable[[EpochResult], None]


@dataclass
class DevicePool:
    """Devices on which trainings run side by side, one at a time on each.

    Attributes:
        devices: What `--device` would say, one a training; several `cpu` share out the cores.
        threads: Threads of each training.
    """

    devices: tuple[str, ...]
    threads: int
    _free: queue.Queue[str] = field(default_factory=queue.Queue)
    _children: set[BaseProcess] = field(default_factory=set)
    _is_over: bool = False

    def __post_init__(self) -> None:
        for device in self.devices:
            self._free.put(device)

    @contextmanager
    def device(self) -> Iterator[str]:
        """A device for the exclusive use of one job of this pool."""
        device = self._free.get()
        try:
            yield device
        finally:
            self._free.put(device)

    def train(self, job: TrainJob, device: str, on_epoch: OnEpoch) -> None:
        """Train and score a job in a process of its own; its results are files.

        Raises:
            SegmedError: What the training raised.
            TrainingError: The process died without a word.
            KeyboardInterrupt: It was asked to stop, and saved.
        """
        if self._is_over:
            raise KeyboardInterrupt("stopped before it began")
        job = replace(job, settings=replace(job.settings, device=device))
        ours, theirs = FRESH.Pipe(duplex=False)
        level = progress.getEffectiveLevel()
        child = FRESH.Process(target=_run, args=(job, self.threads, theirs, level))
        child.start()
        theirs.close()
        self._children.add(child)
        try:
            _follow(ours, on_epoch, f"{job.architecture} fold {job.fold}")
        finally:
            child.join()
            self._children.discard(child)
            ours.close()

    def stop(self) -> None:
        """Tell all that run to save and end; none is begun from now on."""
        self._is_over = True
        for child in list(self._children):
            child.terminate()


def make_device_pool(count: int, device: str) -> DevicePool:
    """Device pool of a machine.

    Args:
        count: How many trainings side by side; 0 for one a GPU, or one where there is none.
        device: `auto`, `cpu`, `cuda` or `cuda:N`, as for a single training.

    Raises:
        UsageError: More are wanted than there are GPUs, cores, or than a single named GPU takes.
    """
    import torch  # noqa: PLC0415 - takes seconds

    cores = os.cpu_count() or 1
    gpus = torch.cuda.device_count() if device in {"auto", "cuda"} else 0
    if device.startswith("cuda:") and count > 1:
        raise UsageError(f"--side-by-side {count} on {device}: one training a GPU; use cuda")
    if gpus:
        wanted = count or gpus
        if wanted > gpus:
            raise UsageError(f"--side-by-side {wanted}: only {gpus} GPUs are visible, one each")
        return DevicePool(
            tuple(f"cuda:{index}" for index in range(wanted)), max(1, cores // wanted)
        )
    wanted = count or 1
    if wanted > cores:
        raise UsageError(f"--side-by-side {wanted}: this machine has {cores} cores, one each")
    return DevicePool((device,) * wanted, max(1, cores // wanted))


def _follow(messages: Connection, on_epoch: OnEpoch, name: str) -> None:
    """Pass on the messages of a child, until its last one."""
    while True:
        try:
            kind, content = messages.recv()
        except EOFError:
            raise TrainingError(
                f"the process that trained {name} died; if the machine ran out of memory, train "
                "fewer side by side; continue with --resume"
            ) from None
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
        with self._turn, suppress(BrokenPipeError):
            self._messages.send((kind, content))


def _run(job: TrainJob, threads: int, messages: Connection, level: int) -> None:
    """Train in the child process."""
    import torch  # noqa: PLC0415 - the child's own

    from pipelines.comparing.training_job import train_and_keep  # noqa: PLC0415 - takes seconds

    torch.set_num_threads(threads)
    parent = _ToParent(messages)
    logging.getLogger().addHandler(parent)
    progress.setLevel(level)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        train_and_keep(job, lambda result: parent.send("epoch", result))
        word: tuple[str, Any] = ("done", None)
    except SegmedError as error:
        word = ("failed", type(error)(str(error)))
    except KeyboardInterrupt as stop:
        word = ("stopped", str(stop))
    parent.send(*word)


def _end_with_parent() -> None:
    """Save and end if the parent process has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
