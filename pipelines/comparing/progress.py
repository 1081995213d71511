"""Progress of trainings in words: which of how many, how far, how long to go, how good."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.comparing.jobs import TrainJob
    from segmed.training import Budget, EpochResult

progress = logging.getLogger("segmed.progress")
"""Reaches Prefect's log of the run, and the terminal of somebody who waits for it."""


def title_of(job: TrainJob) -> str:
    """Name of a job, and its number where there are several: `unet fold 0 (model 2 of 5)`."""
    name = f"{job.architecture} fold {job.fold}"
    return name if job.of == 1 else f"{name} (model {job.number} of {job.of})"


def epoch_line(title: str, result: EpochResult, budget: Budget) -> str:
    """One epoch in one line.

    Args:
        title: What is trained.
        result: What the epoch brought.
        budget: Budget of the training, for percent and time left.
    """
    share = spent_share(result, budget)
    left = result.seconds / share - result.seconds if share > 0 else 0.0
    loss = "" if result.val_loss is None else f"  val loss {result.val_loss:.3f}"
    dice = "  ".join(f"{label} {value:.3f}" for label, value in result.val_dice.items())
    return (
        f"{title}  epoch {result.epoch}  {100 * share:.0f} %, {duration(left)} left  "
        f"loss {result.train_loss:.3f}{loss}  Dice {dice or 'not measured'}"
    )


def spent_share(result: EpochResult, budget: Budget) -> float:
    """Share of a budget that is spent after an epoch, 0 to 1."""
    if budget.seconds is not None:
        return min(1.0, result.seconds / budget.seconds)
    return min(1.0, result.epoch / (budget.epochs or 1))


def duration(seconds: float) -> str:
    """Seconds in words: `42 s`, `3 m 20 s`, `2 h 05 m`."""
    whole = max(0, math.ceil(seconds - 0.5))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} m"


def scoring_lines(title: str, total: int) -> Callable[[int, int], None]:
    """A progress callback (done, total) that logs which case is being scored.

    Of many cases each tenth part is logged. The first is logged at once.

    Args:
        title: What was trained.
        total: Cases in all.
    """
    every = max(1, math.ceil(total / 10))

    def show(done: int, number: int) -> None:
        if done < number and done % every == 0:
            progress.info("%s  scoring case %d of %d", title, done + 1, number)

    show(0, total)
    return show
