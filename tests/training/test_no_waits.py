"""A step for a GPU reads no value of the device, in the memory layout that is fast there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from segmed.manifest import Manifest
from segmed.models.fast_kernels import training_format
from segmed.plan import Plan
from segmed.training.data import load_cases
from segmed.training.device import choose_device
from segmed.training.distributed import ProcessGroup
from segmed.training.graph_step import GraphStep
from segmed.training.snapshot import HostCopy
from segmed.training.trainer import Trainer

READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")
"""Operations whose result the host must wait for, or whose shape depends on values."""


class Reads(TorchDispatchMode):
    """Counts the operations that a host waits for.

    Attributes:
        found: Their names, in order.
        is_paused: Nothing is counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.is_paused = False

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operation."""
        name = str(func).split(".")[1]
        if name in READS and not self.is_paused:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def trainer(plan: Plan) -> Trainer:
    torch.manual_seed(0)
    return Trainer("unet", plan, device=choose_device("cpu"), process_group=ProcessGroup())


def test_the_host_waits_for_nothing_within_a_step(
    trainer: Trainer, manifest: Manifest, plan: Plan, cache_dir: Path
) -> None:
    """But in the optimiser, which on a CPU is not the fused one of a GPU."""
    cases = load_cases(manifest, manifest.split(0)[0], plan, cache_dir)
    steps = GraphStep(trainer, cases, seed=0)
    reads = Reads()
    trainer.optimizer.register_step_pre_hook(lambda *_: setattr(reads, "is_paused", True))
    trainer.optimizer.register_step_post_hook(lambda *_: setattr(reads, "is_paused", False))
    works = [steps.rows(step) for step in range(3)]
    with reads:
        for step, rows in enumerate(works):
            steps.take(rows, step=step, progress=0.3)
        assert reads.found == []
        steps.read()
    assert reads.found == ["_local_scalar_dense"]


def test_a_checkpoint_is_taken_without_a_wait(trainer: Trainer) -> None:
    reads, copy = Reads(), HostCopy(torch.device("cpu"))
    for group in trainer.optimizer.param_groups:
        group["lr"] = torch.tensor(0.1)  # as on a GPU
    trainer.set_learning_rate(0.5)
    with reads:
        taken = copy.take({**trainer.state(), "unread": torch.zeros(())})
    assert reads.found == []
    assert taken["optimizer"]["param_groups"][0]["lr"] == trainer.rate


@pytest.mark.parametrize("dims", [2, 3])
def test_features_are_innermost_on_a_cpu_and_not_on_a_gpu(dims: int) -> None:
    last = {2: torch.channels_last, 3: torch.channels_last_3d}[dims]
    assert training_format(dims, torch.device("cpu")) is last
    assert training_format(dims, torch.device("cuda", 1)) is torch.contiguous_format


def test_weights_and_batches_have_the_same_layout(trainer: Trainer) -> None:
    image = trainer.in_memory_format(
        torch.randn(2, 1, *trainer.plan.patch_size).expand(2, 3, -1, -1, -1)
    )
    assert image.is_contiguous(memory_format=torch.channels_last_3d)
    weights = [p for p in trainer.network.parameters() if p.ndim == 5]
    assert all(weight.is_contiguous(memory_format=torch.channels_last_3d) for weight in weights)
