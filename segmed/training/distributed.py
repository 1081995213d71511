"""Several processes as one trainer, as `torchrun` starts them.

Each process trains on a plan's batch of its own patches; a step's gradients are averaged by one
collective (`segmed.training.gradients`). Preparation and validation are shared out over the
processes. The first process alone writes the run's files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from segmed.errors import TrainingError, is_out_of_memory
from segmed.training.device import Device

PATIENCE = timedelta(hours=2)
"""Longest wait of a process for the others, as at the end of a preparation of unequal cases."""

PROCESSES = "processes"
"""Key of the number of processes in the records of a run; absent for one."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train together.

    Attributes:
        rank: Number of this process; 0 writes the files.
        size: Number of processes.
        is_joined: Collectives are run; False for a process that trains alone.
    """

    rank: int = 0
    size: int = 1
    is_joined: bool = False

    @property
    def leads(self) -> bool:
        """Return whether this process writes the files."""
        return self.rank == 0

    @property
    def identity(self) -> dict[str, int]:
        """Record of the processes, on which a run's batches depend; empty for a process alone."""
        return {PROCESSES: self.size} if self.size > 1 else {}

    def whole_batch(self, batch_size: int) -> int:
        """Patches of a step over all processes, each of which takes `batch_size`."""
        return batch_size * self.size

    def share(self, batch_size: int) -> slice:
        """The part of a step's patches that is this process's.

        Args:
            batch_size: Patches of a process.
        """
        return slice(self.rank * batch_size, (self.rank + 1) * batch_size)

    def part_of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every item whose turn is this process's."""
        return items[self.rank :: self.size]

    def seed(self, seed: int, step: int) -> int:
        """Seed of a step's dropout: another one for each process.

        Args:
            seed: Seed of the run.
            step: Number of the step.
        """
        if self.leads:
            return seed * 1_000_003 + step
        state = np.random.SeedSequence([seed, step, self.rank]).generate_state(1, np.uint64)
        return int(state[0] >> 1)

    def agree(self, value: float) -> float:
        """The leading process's value, in every process."""
        return float(self.total(torch.tensor([value if self.leads else 0.0])).item())

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process, in every process."""
        return float(self.total(torch.tensor([float(flag)])).item()) > 0

    def wait(self) -> None:
        """Wait until every process is here."""
        self.total(torch.zeros(1))

    def require_same(self, value: float, what: str) -> None:
        """Require that a number is the same in all processes.

        Raises:
            TrainingError: It differs from that of the first process; raised in all of them.
        """
        values = torch.zeros(self.size, dtype=torch.float64)
        values[self.rank] = value
        others = self.total(values).tolist()
        odd = [str(rank) for rank, other in enumerate(others) if other != others[0]]
        if odd:
            raise TrainingError(
                f"{what} of process {', '.join(odd)} differ from those of process 0: all processes "
                "need the same files and the same --out folder, on a disk that they share"
            )

    def total(self, values: Tensor) -> Tensor:
        """Sum over the processes of numbers on the host, float64.

        Every process must come here, in the same order.

        Args:
            values: Any shape, on the CPU.

        Raises:
            TrainingError: Another process has ended.
        """
        values = values.double()
        return self.add_up(values) if self.is_joined else values

    def add_up(self, tensor: Tensor) -> Tensor:
        """Add a tensor up over the processes, in place, on its own device.

        Raises:
            TrainingError: Another process has ended.
        """
        with _explained_loss_of_peers():
            dist.all_reduce(tensor)
        return tensor


@contextmanager
def _explained_loss_of_peers() -> Iterator[None]:
    """Report a collective that failed as what it is.

    Raises:
        TrainingError: Another process has ended or cannot be reached.
    """
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        detail = " ".join(str(error).split())[:160]
        raise TrainingError(
            "another process of this training has ended, see its own message; this one cannot "
            f"continue alone: start all of them again, with --resume ({detail})"
        ) from error


@contextmanager
def join_process_group(device: Device) -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` started; alone, a process group of one.

    Tensors on GPUs go by NCCL; numbers on the host go by gloo, which waits for no GPU and notices
    at once when a process ends.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ProcessGroup()
        return
    with joined(device) as group:
        yield group


@contextmanager
def joined(device: Device) -> Iterator[ProcessGroup]:
    """Run collectives, also with a single process; addresses come from the environment."""
    if device.is_cuda:
        torch.cuda.set_device(device.torch_device)
    backend = "cpu:gloo,cuda:nccl" if device.is_cuda else "gloo"
    with _explained_loss_of_peers():
        dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), is_joined=True)
    finally:
        dist.destroy_process_group()
