"""Checkpoints and history of one run, written by one process of a training."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from segmed.errors import TrainingError
from segmed.training.budget import Budget
from segmed.training.checkpoint import (
    BEST,
    LAST,
    Checkpoint,
    damaged,
    keep_as,
    load_checkpoint,
    save_checkpoint,
    write_history,
)
from segmed.training.distributed import PROCESSES
from segmed.training.settings import EpochResult
from segmed.training.snapshot import BackgroundWriter, HostCopy
from segmed.training.trainer import Trainer

HISTORY = "history.jsonl"


EPOCH_S = 30.0
"""Epochs shorter than this, in s, share a checkpoint where a thread writes it."""

CPU = torch.device("cpu")


@dataclass
class RunFiles:
    """The files from which a run continues.

    On a GPU they are written by a thread from a copy of the state, while the training goes on.

    Attributes:
        folder: Folder of the run.
        identity: What may not change on resume.
        budget: Budget of the run.
        minutes: Longest time between two checkpoints.
        device: Device of the training.
        in_thread: Files are written by a thread; on a GPU if not given.
        saved_at: Time of the last checkpoint, by the monotonic clock.
    """

    folder: Path
    identity: dict[str, object]
    budget: Budget
    minutes: float
    device: torch.device = CPU
    in_thread: bool | None = None
    saved_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        is_threaded = self.device.type == "cuda" if self.in_thread is None else self.in_thread
        self._writer = BackgroundWriter() if is_threaded else None
        self._copy = HostCopy(self.device)

    @property
    def are_due(self) -> bool:
        """Return whether the last checkpoint is older than it should be; also asked every step.

        Raises:
            TrainingError: The checkpoint that was written last failed.
        """
        if self._writer is not None:
            self._writer.check()
            if self._writer.is_busy:
                return False
        return time.monotonic() - self.saved_at > 60 * self.minutes

    @property
    def are_fresh(self) -> bool:
        """Return whether the end of an epoch needs no checkpoint of its own."""
        if self._writer is None:
            return False
        return self._writer.is_busy or time.monotonic() - self.saved_at < EPOCH_S

    def save(
        self,
        trainer: Trainer,
        *,
        step: int,
        elapsed_s: float,
        is_finished: bool,
        history: Sequence[EpochResult],
        tally: dict[str, float],
        unread: Tensor | None = None,
        is_best: bool = False,
    ) -> float:
        """Write the checkpoint to continue from, and the history.

        Args:
            trainer: Weights and optimiser.
            step: Steps done.
            elapsed_s: Seconds of the budget spent.
            is_finished: Whether the budget is spent.
            history: One result an epoch.
            tally: Running sums of the epoch under way.
            unread: Sum of losses that is known to the device alone. Where it is not finite nothing
                is written: the last checkpoint is of better weights.
            is_best: Keep it as the checkpoint of the best epoch, too.

        Returns:
            Seconds that it took from the training.

        Raises:
            TrainingError: The disk is full; by a thread at the next call of this or of `are_due`.
        """
        begin = time.monotonic()
        records = [result.as_record() for result in history]
        if self._writer is not None:
            self._writer.wait()  # its copy is used again
        state = {**trainer.state(), "unread": unread}
        if self._writer is not None:
            state = self._copy.take(state)
        sums, elapsed = dict(tally), elapsed_s

        def write() -> None:
            self._copy.wait()
            loss = state.pop("unread")
            if loss is not None:
                sums["loss"] += float(loss)
            if not math.isfinite(sums.get("loss", 0.0)):
                return
            checkpoint = Checkpoint(
                run=dict(self.identity),
                step=step,
                elapsed_s=elapsed,
                budget=asdict(self.budget),
                is_finished=is_finished,
                history=records,
                tally=sums,
                **state,
            )
            save_checkpoint(checkpoint, self.folder / LAST)
            if is_best:
                keep_as(self.folder / LAST, self.folder / BEST)
            write_history(records, self.folder / HISTORY)

        if self._writer is None:
            write()
        else:
            self._writer.start(write)
        self.saved_at = time.monotonic()
        return self.saved_at - begin

    def finish(self) -> None:
        """Wait until everything is written.

        Raises:
            TrainingError: It could not be.
        """
        if self._writer is not None:
            self._writer.wait()

    def close(self) -> None:
        """`finish`, and end the thread."""
        if self._writer is not None:
            self._writer.close()

    def load(self, trainer: Trainer) -> tuple[Checkpoint, list[EpochResult]]:
        """Read the checkpoint to continue from, and give the trainer its parts.

        Raises:
            TrainingError: It is damaged, or of another run.
        """
        place = self.folder / LAST
        required = {key: value for key, value in self.identity.items() if key != PROCESSES}
        checkpoint = load_checkpoint(place, run=required)
        before, now = checkpoint.run.get(PROCESSES, 1), self.identity.get(PROCESSES, 1)
        if before != now:
            raise TrainingError(
                f"{place} is of a training by {before} process(es), now there are {now}: start "
                f"as many (torchrun --nproc-per-node {before}), or start again without --resume"
            )
        try:
            trainer.load_state(vars(checkpoint))
            return checkpoint, [EpochResult(**record) for record in checkpoint.history]
        except TrainingError:
            raise
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            why = f"it does not fit the network: {' '.join(str(error).split())[:120]}"
            raise damaged(place, why) from error

    def is_spent(self, checkpoint: Checkpoint) -> bool:
        """Return whether a checkpoint ended this very budget."""
        return checkpoint.is_finished and checkpoint.budget == asdict(self.budget)
