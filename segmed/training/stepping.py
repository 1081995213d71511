"""Steps of a training, eager or as a captured graph, with one interface for the loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from functools import partial
from math import inf
from typing import Any, Protocol

import torch
from torch import Tensor

from segmed.plan.schema import Plan
from segmed.training.data import Batch, make_batch, one_ahead, place_cases
from segmed.training.distributed import ProcessGroup
from segmed.training.graph_step import CaptureError, GraphStep, why_no_graph
from segmed.training.resident import PatchRows, ResidentCases, VoxelStore
from segmed.training.ring import AHEAD, PatchRing
from segmed.training.sampling import TrainingCase
from segmed.training.trainer import Trainer

log = logging.getLogger(__name__)


class Steps(Protocol):
    """Takes the steps of one training, in order."""

    def works(self, first: int) -> Iterator[Any]:
        """The host's work for each step from `first` on, made ahead of its use."""
        ...

    def take(self, work: Any, *, step: int, progress: float) -> float:
        """Take one step.

        Args:
            work: From `works`.
            step: Number of the step.
            progress: Share of the budget that is spent.

        Returns:
            Sum of the losses that became known, of this step or of several; NaN if one is NaN.
        """
        ...

    def flush(self) -> float:
        """Wait for all steps; the sum of the losses not yet known."""
        ...

    @property
    def unread(self) -> Tensor | None:
        """Sum on the device of the losses not yet known; None if all are."""
        ...

    def phases(self) -> dict[str, float]:
        """Seconds by phase since the last call, see `segmed.training.phases.PHASES`."""
        ...


def make_steps(
    trainer: Trainer,
    cases: Sequence[TrainingCase],
    *,
    process_group: ProcessGroup,
    seed: int,
    room: float,
) -> Steps:
    """The fastest way to take steps on the trainer's device.

    Args:
        trainer: Network and optimiser; a checkpoint is loaded before.
        cases: Prepared cases, on the host.
        process_group: The processes that train together.
        seed: Seed of the run.
        room: Bytes of the device's memory that a step leaves free.
    """
    reason = why_no_graph(trainer, trainer.device)
    voxels = None
    if not reason:
        voxels = voxels_within(room, cases, trainer.plan, trainer.device.torch_device)
        if voxels is None:
            reason = f"{room / 1e9:.1f} GB beside the step hold not even the patches of a few steps"
    if not process_group.any(bool(reason)):
        return GraphSteps(
            trainer, cases, seed=seed, process_group=process_group, voxels=voxels, room=room
        )
    del voxels
    reason = reason or "that of another process cannot be"
    if trainer.device.is_cuda:
        log.info("training steps are not captured as a graph: %s", reason)
    return EagerSteps(trainer, cases, process_group=process_group, seed=seed, room=room)


def voxels_within(
    room: float, cases: Sequence[TrainingCase], plan: Plan, device: torch.device
) -> VoxelStore | None:
    """All cases on the device where they fit, else a ring of patches; None if that does not fit.

    Args:
        room: Bytes that they may take.
        cases: Prepared cases, on the host.
        plan: Patch, batch and augmentation.
        device: Device of the training.
    """
    whole, ring = ResidentCases.num_bytes(cases, plan), PatchRing.num_bytes(cases, plan)
    if whole <= room:
        log.info("the prepared cases, %.2f GB, stay on the device", whole / 1e9)
        return ResidentCases.of(cases, plan, device)
    if ring > room:
        return None
    log.info(
        "the prepared cases, %.1f GB, do not fit beside a step into %.1f GB: their patches pass "
        "through %.2f GB on the device and as much pinned memory",
        whole / 1e9,
        room / 1e9,
        ring / 1e9,
    )
    return PatchRing(cases, plan, device)


class EagerSteps:
    """Batches made on the host (or cut from cases on the GPU), one call a kernel.

    Args:
        trainer: Network and optimiser.
        cases: Prepared cases, on the host; they move to the GPU where they fit.
        process_group: The processes that train together.
        seed: Seed of the run.
        room: Bytes of the device's memory that a step leaves free.
    """

    def __init__(
        self,
        trainer: Trainer,
        cases: Sequence[TrainingCase],
        *,
        process_group: ProcessGroup,
        seed: int,
        room: float = inf,
    ) -> None:
        self._trainer = trainer
        self._cases = place_cases(cases, trainer.device, room=room)
        self._process_group = process_group
        self._seed = seed

    def works(self, first: int) -> Iterator[Batch]:
        """Batches of the steps from `first` on."""
        return one_ahead(self.batch, first)

    def take(self, work: Batch, *, step: int, progress: float) -> float:
        """Take one step and wait for its loss."""
        torch.manual_seed(self._process_group.seed(self._seed, step))  # dropout
        return float(self._trainer.step(work, step=step, progress=progress))

    def flush(self) -> float:
        """Nothing is left: every step was waited for."""
        return 0.0

    @property
    def unread(self) -> Tensor | None:
        """None: every step was waited for."""
        return None

    def phases(self) -> dict[str, float]:
        """Seconds of each phase of the step that ended last."""
        return self._trainer.timer.seconds()

    def batch(self, step: int) -> Batch:
        """The batch of one step, not yet augmented."""
        plan: Plan = self._trainer.plan
        batch_size = plan.recipe.batch_size
        batch = make_batch(
            self._cases,
            plan,
            seed=self._seed,
            step=step,
            share=self._process_group.share(batch_size),
            batch_size=self._process_group.whole_batch(batch_size),
        )
        return batch.pinned() if self._trainer.device.is_cuda else batch


class GraphSteps:
    """One captured graph a step; eager steps if the network cannot be captured.

    Args:
        trainer: Network and optimiser, on a GPU.
        cases: Prepared cases, on the host.
        seed: Seed of the run.
        process_group: The processes that train together.
        voxels: Voxels of the cases on the device; all of them if not given.
        room: Bytes of the device's memory that a step leaves free.
    """

    def __init__(
        self,
        trainer: Trainer,
        cases: Sequence[TrainingCase],
        *,
        seed: int,
        process_group: ProcessGroup = ProcessGroup(),
        voxels: VoxelStore | None = None,
        room: float = inf,
    ) -> None:
        self._graph: GraphStep | None = GraphStep(
            trainer, cases, seed=seed, process_group=process_group, voxels=voxels
        )
        self._make_eager = partial(
            EagerSteps, trainer, cases, process_group=process_group, seed=seed, room=room
        )
        self._eager: EagerSteps | None = None
        self._since: float | None = None
        self._seconds = 0.0

    @property
    def is_eager(self) -> bool:
        """Return whether the steps could not be captured."""
        return self._eager is not None

    def works(self, first: int) -> Iterator[PatchRows | Batch]:
        """Rows of numbers of the steps from `first` on, or batches once steps are eager."""
        return one_ahead(self._work, first, ahead=AHEAD)

    def take(self, work: PatchRows | Batch, *, step: int, progress: float) -> float:
        """Send one step to the device; losses become known every few dozen steps."""
        if self._graph is not None and isinstance(work, PatchRows):
            self._since = self._since or time.monotonic()
            try:
                self._graph.take(work, step=step, progress=progress)
            except CaptureError as error:
                log.warning("%s: training goes on in eager steps", error)
                self._graph = self._since = None  # its memory is free for the cases of the other
                self._eager = self._make_eager()
            else:
                return self.flush() if self._graph.is_due else 0.0
        assert self._eager is not None
        batch = work if isinstance(work, Batch) else self._eager.batch(step)
        return self._eager.take(batch, step=step, progress=progress)

    def flush(self) -> float:
        """Wait for all steps; the sum of the losses not yet known."""
        if self._graph is None:
            return 0.0
        total = self._graph.read()
        if self._since is not None:
            self._seconds += time.monotonic() - self._since
            self._since = None
        return total

    @property
    def unread(self) -> Tensor | None:
        """Sum on the device of the losses not yet known; None for eager steps."""
        return None if self._graph is None else self._graph.loss_sum

    def phases(self) -> dict[str, float]:
        """Seconds since the last call, not divided into phases."""
        if self._eager is not None:
            return self._eager.phases()
        seconds, self._seconds = self._seconds, 0.0
        return {"graph": seconds} if seconds else {}

    def _work(self, step: int) -> PatchRows | Batch:
        graph, eager = self._graph, self._eager
        if graph is not None:
            return graph.rows(step)
        assert eager is not None
        return eager.batch(step)
