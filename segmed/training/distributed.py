"""Several processes as one trainer, as `torchrun` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from segmed.training.device import Device

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: the first one validates and writes alone."""


@dataclass(frozen=True)
class ProcessGroup:
    """This process among all of them.

    Attributes:
        rank: Number of this process; 0 writes the files.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Return whether this process writes files and validates."""
        return self.rank == 0

    def whole_batch(self, batch_size: int) -> int:
        """The smallest batch of at least `batch_size` patches that all processes share evenly."""
        return -(-batch_size // self.size) * self.size

    def share(self, batch_size: int) -> slice:
        """The part of a batch that is this process's.

        Args:
            batch_size: Patches of the batch, from `whole_batch`.
        """
        part = batch_size // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def agree(self, value: float) -> float:
        """The leading process's value, in every process."""
        return self._total(value if self.leads else 0.0)

    def mean(self, value: float) -> float:
        """The mean over the processes; NaN in all of them if it is NaN in one."""
        return self._total(value) / self.size

    def any(self, flag: bool) -> bool:
        """Return whether any process says so, in every process."""
        return self._total(float(flag)) > 0

    def wait(self) -> None:
        """Until every process is here."""
        self._total(0.0)

    def _total(self, value: float) -> float:
        """The sum over the processes; each of them must come here, in the same order."""
        if self.size == 1:
            return value
        box = torch.tensor([value], dtype=torch.float64)
        if dist.get_backend() == "nccl":
            box = box.cuda()
        dist.all_reduce(box)
        return float(box.item())

    def wrap(self, network: nn.Module, device: Device) -> nn.Module:
        """The network with its gradients averaged over the processes."""
        if self.size == 1:
            return network
        ids = [device.torch_device.index] if device.is_cuda else None
        return nn.parallel.DistributedDataParallel(network, device_ids=ids)


@contextmanager
def join_process_group(device: Device) -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` started; alone, a process group of one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ProcessGroup()
        return
    if device.is_cuda:
        torch.cuda.set_device(device.torch_device)
    dist.init_process_group("nccl" if device.is_cuda else "gloo", timeout=PATIENCE)
    try:
        yield ProcessGroup(rank=dist.get_rank(), size=size)
    finally:
        dist.destroy_process_group()
