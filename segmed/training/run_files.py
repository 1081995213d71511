"""Checkpoints and history of one run, written by one process of a training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

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
from segmed.training.trainer import Trainer

HISTORY = "history.jsonl"


@dataclass
class RunFiles:
    """The files from which a run continues.

    Attributes:
        folder: Folder of the run.
        identity: What may not change on resume.
        budget: Budget of the run.
        minutes: Longest time between two checkpoints.
        saved_at: Time of the last checkpoint, by the monotonic clock.
    """

    folder: Path
    identity: dict[str, object]
    budget: Budget
    minutes: float
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def are_due(self) -> bool:
        """Return whether the last checkpoint is older than it should be."""
        return time.monotonic() - self.saved_at > 60 * self.minutes

    def save(
        self,
        trainer: Trainer,
        *,
        step: int,
        elapsed_s: float,
        is_finished: bool,
        history: Sequence[EpochResult],
        tally: dict[str, float],
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
            is_best: Keep it as the checkpoint of the best epoch, too.

        Returns:
            Seconds that it took.

        Raises:
            TrainingError: The disk is full.
        """
        begin = time.monotonic()
        records = [result.as_record() for result in history]
        checkpoint = Checkpoint(
            run=dict(self.identity),
            step=step,
            elapsed_s=elapsed_s,
            budget=asdict(self.budget),
            is_finished=is_finished,
            history=records,
            tally=dict(tally),
            **trainer.state(),
        )
        save_checkpoint(checkpoint, self.folder / LAST)
        if is_best:
            keep_as(self.folder / LAST, self.folder / BEST)
        write_history(records, self.folder / HISTORY)
        self.saved_at = time.monotonic()
        return self.saved_at - begin

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
                f"as many (torchrun --nproc-per-node {before}), or begin anew without --resume"
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
