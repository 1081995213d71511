"""A training step without synchronisation: voxels on the device, one gather, one CUDA graph.

The host draws the patches of each step, as for the eager step, and sends one row of numbers a
patch; where the cases do not fit on the device also the voxels of the patches. Sampling, forward
pass, loss, backward pass, clipping, optimiser and averaged weights are replayed as one graph.
Losses add up on the device and are read every `READ_EVERY` steps.

Of several processes each replays a graph of its own; the collective that averages their gradients
is part of it. If one process cannot capture its step, all of them take eager steps.

On a CPU the same body runs without a graph; only tests use that.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segmed.errors import TrainingError
from segmed.training.device import Device
from segmed.training.distributed import ProcessGroup
from segmed.training.gathering import gather_patches
from segmed.training.resident import PatchRows, ResidentCases, VoxelStore, patch_rows
from segmed.training.sampling import TrainingCase
from segmed.training.shading import shade_images
from segmed.training.trainer import Trainer

log = logging.getLogger(__name__)

READ_EVERY = 50
"""Steps after which the losses are read, which waits for the device."""

TIMED_STEPS = 8
"""First steps of a run that are waited for, so that their length can be measured."""

WARM_UP = 3
"""Steps before the capture; what they change is undone."""

SLOTS = 8
"""Steps that the host may be ahead of the device."""


class CaptureError(Exception):
    """A training step cannot be captured as a graph; weights and optimiser are as before."""


def why_no_graph(trainer: Trainer, device: Device) -> str:
    """The reason why a training cannot run as a captured graph; empty where it can."""
    if not device.is_cuda:
        return "the device is a CPU"
    if trainer.needs_scaler:
        return "float16 needs its scale checked at every step"
    if trainer.plan.recipe.optimizer != "adamw":
        return f"the optimiser is {trainer.plan.recipe.optimizer}"
    if trainer.plan.recipe.extra_augmentation:
        return "recipe.extra_augmentation runs transforms of MONAI"
    if torch.are_deterministic_algorithms_enabled():
        return "--deterministic requires algorithms that a graph cannot contain"
    return ""


@dataclass
class _Slot:
    """Pinned host memory of one step's numbers, and the event after which it may be overwritten."""

    places: Tensor
    floats: Tensor
    copied: torch.cuda.Event | None = None


class GraphStep:
    """Steps of one training on voxels in the memory of the device.

    Args:
        trainer: Network, optimiser and averaged weights; a checkpoint is loaded before.
        cases: Prepared cases, on the host.
        seed: Seed of the run.
        voxels: Their voxels on the device; all of them if not given.
        process_group: The processes that train together.

    Attributes:
        loss_sum: Sum on the device of the losses not yet read.
    """

    def __init__(
        self,
        trainer: Trainer,
        cases: Sequence[TrainingCase],
        *,
        seed: int,
        voxels: VoxelStore | None = None,
        process_group: ProcessGroup = ProcessGroup(),
    ) -> None:
        self._trainer = trainer
        self._process_group = process_group
        trainer.timer.is_paused = True
        self._cases = tuple(cases)
        self._seed = seed
        self._device = trainer.device
        where = self._device.torch_device
        self._voxels = voxels or ResidentCases.of(cases, trainer.plan, where)
        first = self.rows(0)
        self._places = torch.zeros_like(first.places, device=where)
        self._floats = torch.zeros_like(first.floats, device=where)
        self._ema_weight = torch.zeros((), device=where)
        self.loss_sum = torch.zeros((), device=where)
        self._graph: torch.cuda.CUDAGraph | None = None
        is_pinned = self._device.is_cuda
        self._slots = [
            _Slot(
                torch.zeros_like(first.places, pin_memory=is_pinned),
                torch.zeros_like(first.floats, pin_memory=is_pinned),
            )
            for _ in range(SLOTS)
        ]
        self._taken = 0
        self._unread = 0

    def rows(self, step: int) -> PatchRows:
        """The host's part of a step: what `take` needs; a function of seed and step alone."""
        return patch_rows(
            self._cases,
            self._voxels,
            self._trainer.plan,
            seed=self._seed,
            step=step,
            process_group=self._process_group,
        )

    def take(self, rows: PatchRows, *, step: int, progress: float) -> None:
        """Train on one batch, without waiting for it.

        Args:
            rows: From `rows(step)`.
            step: Number of the step, for the averaged weights.
            progress: Share of the budget spent, for the learning rate.

        Raises:
            CaptureError: At the first step, if it cannot be captured.
        """
        self._send(rows)
        self._voxels.send(rows.step)
        self._trainer.set_learning_rate(progress)
        self._ema_weight.fill_(self._trainer.ema_weight(step))
        if self._device.is_cuda and self._graph is None:
            self._graph = self._captured_by_all()
        torch.manual_seed(rows.seed)  # a replay takes its noise from the generator's seed
        if self._graph is None:
            self._body()
        else:
            self._graph.replay()
        self._voxels.used(rows.step)
        self._taken += 1
        self._unread += 1

    @property
    def is_due(self) -> bool:
        """Return whether the losses should be read now."""
        return self._unread >= READ_EVERY or self._taken <= TIMED_STEPS

    def read(self) -> float:
        """Sum of the losses since the last reading; waits for the device. NaN if one was NaN."""
        total = float(self.loss_sum)
        self.loss_sum.zero_()
        self._unread = 0
        return total

    def _send(self, rows: PatchRows) -> None:
        slot = self._slots[self._taken % SLOTS]
        if slot.copied is not None:
            slot.copied.synchronize()
        slot.places.copy_(rows.places)
        slot.floats.copy_(rows.floats)
        self._places.copy_(slot.places, non_blocking=True)
        self._floats.copy_(slot.floats, non_blocking=True)
        if self._device.is_cuda:
            slot.copied = torch.cuda.Event()
            slot.copied.record(torch.cuda.current_stream(self._device.torch_device))

    def _body(self) -> None:
        """Everything that happens on the device, in shapes and calls that never change."""
        trainer, plan = self._trainer, self._trainer.plan
        with torch.no_grad():
            image, label, factors = gather_patches(self._voxels, self._places, self._floats, plan)
            image = trainer.in_memory_format(shade_images(image, factors, plan))
        loss = trainer.update(image, label)
        trainer.average(self._ema_weight)
        self.loss_sum += loss

    def _captured_by_all(self) -> torch.cuda.CUDAGraph:
        """The graph of this process, once every process has one.

        Raises:
            CaptureError: The step of this or of another process cannot be captured.
        """
        graph, fault = None, ""
        try:
            graph = self._captured()
        except (torch.OutOfMemoryError, TrainingError):
            raise
        except RuntimeError as error:
            fault = " ".join(str(error).split())[:200]
        is_lost = self._process_group.any(bool(fault))
        if graph is None or is_lost:
            self._trainer.timer.is_paused = False
            detail = fault or "that of another process"
            raise CaptureError(f"the step cannot be captured as a graph ({detail})")
        return graph

    def _captured(self) -> torch.cuda.CUDAGraph:
        """Warm up, undo what that changed, capture."""
        where = self._device.torch_device
        with torch.cuda.device(where):
            side = torch.cuda.Stream(where)
            side.wait_stream(torch.cuda.current_stream(where))
            with torch.cuda.stream(side), self._trainer.undone(), self._undone_sum():
                for _ in range(WARM_UP):
                    self._body()
            torch.cuda.current_stream(where).wait_stream(side)
            self._trainer.optimizer.zero_grad(set_to_none=True)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=side):
                self._body()
        log.info("the training step is captured as one CUDA graph")
        return graph

    def _undone_sum(self) -> _Restored:
        return _Restored([self.loss_sum])


class _Restored:
    """Puts the values of some tensors back at its end."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors

    def __enter__(self) -> None:
        self._values = [tensor.detach().clone() for tensor in self._tensors]

    def __exit__(self, *_: object) -> None:
        with torch.no_grad():
            for tensor, value in zip(self._tensors, self._values, strict=True):
                tensor.copy_(value)
