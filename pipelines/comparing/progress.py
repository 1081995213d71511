"""Progress of trainings: which of how many, how far, how long to go, how good.

A training reports through the logger `segmed.progress`. Each record carries a line for logs and a
`Report` for displays; records of level DEBUG exist for displays alone.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.comparing.jobs import TrainJob
    from segmed.training import Budget, EpochResult

PROGRESS = "segmed.progress"
"""Name of the logger of progress."""

progress = logging.getLogger(PROGRESS)
"""Reaches Prefect's log of the run, and the terminal of the user."""

REPORT = "report"
"""Attribute of a log record that carries a `Report`."""

STARTED = "training"
"""State between the last prepared case and the end of the first epoch."""

MOST_STRUCTURES, LOWEST_STRUCTURES = 10, 5
"""Structures that a line lists; of more than that, how many of the lowest it lists."""

EVERY_S = 5.0
"""Shortest time between two lines about prepared cases, in s."""


@dataclass(frozen=True)
class Report:
    """State of one training, for a display.

    Attributes:
        title: The training, and its number where there are several.
        state: Phase and Dice in words, such as `scoring case 3 of 7`.
        share: Share of the budget that is spent, or of the cases of this phase; None if unknown.
        left_s: Wall time left of the budget or phase, in s; None if unknown.
        is_over: The training is finished and scored, or nothing was left to do.
    """

    title: str
    state: str
    share: float | None = None
    left_s: float | None = None
    is_over: bool = False


def report(line: str, state: Report, *, level: int = logging.INFO) -> None:
    """Log a line with the state it describes."""
    progress.log(level, "%s", line, extra={REPORT: state})


@dataclass
class TrainingProgress:
    """Reports of one training, from its first case prepared to its last case scored.

    Attributes:
        job: The training.
        is_resumed: It continues from a checkpoint.
    """

    job: TrainJob
    is_resumed: bool = False
    _begun: float = field(default_factory=time.monotonic)
    _said: float = field(default_factory=time.monotonic)
    _known: tuple[float, float] | None = None

    @property
    def title(self) -> str:
        """Name of the training."""
        return title_of(self.job)

    def prepared(self, done: int, total: int) -> None:
        """Report cases as prepared; the budget starts after the last one."""
        spent = time.monotonic() - self._begun
        if done >= total:
            self._known = None if self.is_resumed else (time.monotonic(), 0.0)
            end = f"{self.title}  {total} cases prepared in {exact_duration(spent)}; {self._start}"
            seconds = self.job.budget.seconds if self.job.budget.clock == "wall" else None
            share, left = (None, None) if self.is_resumed else (0.0, seconds)
            report(end, Report(self.title, STARTED, share, left))
            return
        state = f"preparing case {done + 1} of {total}"
        is_due = time.monotonic() - self._said >= EVERY_S
        if is_due:
            self._said = time.monotonic()
        left = spent / done * (total - done) if done else None
        report(
            f"{self.title}  {state}, {duration(spent)}",
            Report(self.title, state, done / total, left),
            level=logging.INFO if is_due else logging.DEBUG,
        )

    @property
    def _start(self) -> str:
        if self.is_resumed:
            return "the budget continues"
        budget = self.job.budget
        if budget.seconds is None:
            return f"{budget.epochs} epochs start now"
        kind = " of CPU time" if budget.clock == "cpu" else ""
        return f"the budget of {duration(budget.seconds)}{kind} starts now"

    def epoch(self, result: EpochResult) -> None:
        """Report the end of an epoch."""
        share = spent_share(result, self.job.budget)
        left = self._left_s(share, result)
        dice = f"  Dice {result.mean_dice:.3f}" if result.val_dice else ""
        state = Report(self.title, f"epoch {result.epoch}{dice}", share, left)
        report(epoch_line(self.title, result, self.job.budget, left_s=left), state)

    def _left_s(self, share: float, result: EpochResult) -> float:
        """Wall time left: of a wall budget exactly, else by the pace since the training began."""
        budget, now = self.job.budget, time.monotonic()
        if budget.seconds is not None and budget.clock == "wall":
            return max(0.0, budget.seconds - result.seconds)
        since, before = self._known = self._known or (now, share)
        if share > before:
            return (1 - share) * (now - since) / (share - before)
        return result.seconds / share - result.seconds if share > 0 else 0.0

    def scoring(self, total: int) -> Callable[[int, int], None]:
        """Callback (done, total) that reports which case is being scored.

        Of many cases each tenth part is logged. The first is logged at once.
        """
        every = max(1, math.ceil(total / 10))
        begun = time.monotonic()

        def show(done: int, number: int) -> None:
            if done >= number:
                return
            state = f"scoring case {done + 1} of {number}"
            left = (time.monotonic() - begun) / done * (number - done) if done else None
            report(
                f"{self.title}  {state}",
                Report(self.title, state, done / number, left),
                level=logging.INFO if done % every == 0 else logging.DEBUG,
            )

        show(0, total)
        return show

    def scored(self, dice: float, cases: int) -> None:
        """Report the end of the training, with its mean Dice over the held-out cases."""
        report(
            f"{self.title}  held-out Dice {dice:.3f} over {cases} cases",
            Report(self.title, f"Dice {dice:.3f}", 1.0, is_over=True),
        )

    def failed(self) -> None:
        """Report an end without scores; the reason is an error of its own."""
        report(
            f"{self.title}  ended without scores",
            Report(self.title, "not finished", is_over=True),
            level=logging.DEBUG,
        )


def report_kept(job: TrainJob) -> None:
    """Report a training that an earlier call has finished and scored."""
    title = title_of(job)
    line = f"{title}  is trained and scored already: kept"
    report(line, Report(title, "kept", 1.0, is_over=True))


def title_of(job: TrainJob) -> str:
    """Name of a job, and its number where there are several: `unet fold 0 (model 2 of 5)`."""
    name = f"{job.model} fold {job.fold}"
    return name if job.of == 1 else f"{name} (model {job.number} of {job.of})"


def epoch_line(
    title: str, result: EpochResult, budget: Budget, *, left_s: float | None = None
) -> str:
    """One epoch in one line.

    Args:
        title: Name of the training.
        result: Result of the epoch.
        budget: Budget of the training, for percent and time left.
        left_s: Time left in s; by the share of the budget if not given.
    """
    share = spent_share(result, budget)
    if left_s is None:
        left_s = result.seconds / share - result.seconds if share > 0 else 0.0
    loss = "" if result.val_loss is None else f"  val loss {result.val_loss:.3f}"
    return (
        f"{title}  epoch {result.epoch}  {100 * share:.0f} %, {duration(left_s)} left  "
        f"loss {result.train_loss:.3f}{loss}  Dice {_dice_words(result)}"
    )


def _dice_words(result: EpochResult) -> str:
    """Dice of each structure; of many their mean, and the lowest ones."""
    if not result.val_dice:
        return "not measured"
    shown, head = list(result.val_dice.items()), ""
    if len(shown) > MOST_STRUCTURES:
        head = f"{result.mean_dice:.3f} over {len(shown)} structures, lowest  "
        shown = sorted(shown, key=lambda pair: pair[1])[:LOWEST_STRUCTURES]
    return head + "  ".join(f"{label} {value:.3f}" for label, value in shown)


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


def exact_duration(seconds: float) -> str:
    """Seconds in words, with a tenth below ten seconds: `0.3 s`."""
    return f"{seconds:.1f} s" if seconds < 9.95 else duration(seconds)
