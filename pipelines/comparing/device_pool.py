"""Trainings side by side: each in a process of its own, on a device of its own."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipelines.comparing.jobs import TrainJob
from pipelines.comparing.training_process import OnEpoch, Step, TrainingProcess
from segmed.errors import TrainingError, UsageError


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
    _processes: dict[Path, TrainingProcess] = field(default_factory=dict)
    _placed: set[Path] = field(default_factory=set)
    _turn: threading.Lock = field(default_factory=threading.Lock)
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

    @property
    def is_single(self) -> bool:
        """True where one training runs at a time, in this process."""
        return len(self.devices) == 1

    @contextmanager
    def placed(self, job: TrainJob) -> Iterator[TrainJob]:
        """The job, on a device of its own where several run side by side.

        Within the block its process stays for the next step: a start takes seconds of imports, and
        on a busy machine a minute in which nothing is reported.
        """
        if self.is_single:
            yield job
            return
        with self.device() as device:
            self._placed.add(job.run_dir)
            try:
                yield replace(job, settings=replace(job.settings, device=device))
            finally:
                self._placed.discard(job.run_dir)
                self._end_process(job)

    def train(self, job: TrainJob, device: str, on_epoch: OnEpoch) -> None:
        """Train a job in a process of its own; its results are files.

        Raises:
            SegmedError: An error of the training.
            TrainingError: The process died.
            KeyboardInterrupt: The training was stopped, and saved.
        """
        self._apart("train", job, device, on_epoch)

    def score(self, job: TrainJob, device: str) -> None:
        """Score the held-out cases of a trained job, in the process that trained it if it is there.

        Raises:
            SegmedError: An error of the scoring.
            TrainingError: The process died.
            KeyboardInterrupt: The scoring was stopped.
        """
        self._apart("score", job, device, lambda _result: None)

    def _apart(self, step: Step, job: TrainJob, device: str, on_epoch: OnEpoch) -> None:
        job = replace(job, settings=replace(job.settings, device=device))
        process = self._process_of(job)
        try:
            process.run(step, job, on_epoch)
        except BaseException as error:
            process.stop()  # it may still train, where an epoch could not be tracked
            self._end_process(job)
            if isinstance(error, TrainingError) and self._is_over:
                raise KeyboardInterrupt("stopped while it loaded its libraries") from None
            raise
        if step == "score" or job.run_dir not in self._placed:
            self._end_process(job)

    def _process_of(self, job: TrainJob) -> TrainingProcess:
        """The process of a job, started if there is none."""
        with self._turn:
            if self._is_over:
                raise KeyboardInterrupt("stopped before it began")
            if job.run_dir not in self._processes:
                self._processes[job.run_dir] = TrainingProcess(self.threads)
            return self._processes[job.run_dir]

    def _end_process(self, job: TrainJob) -> None:
        process = self._processes.pop(job.run_dir, None)
        if process is not None:
            process.end()

    def stop(self) -> None:
        """Let all trainings save and end; none begins from now on."""
        with self._turn:
            self._is_over = True
            running = list(self._processes.values())
        for process in running:
            process.stop()


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
