"""Clock of a training budget: wall time or CPU time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

ClockKind = Literal["wall", "cpu"]


class Clock:
    """Seconds of a budget spent, over interruptions.

    Preparing the cases never counts: a full cache and an empty one leave the same time to train.
    By the wall everything after it counts, validations and checkpoints included. By the processor
    only the training itself counts, in CPU seconds of all threads together. So trainings on a
    machine that others use as well, or against other programs, have the same means.

    Args:
        kind: `wall` or `cpu`.
    """

    def __init__(self, kind: ClockKind = "wall") -> None:
        self.kind = kind
        self.before_s = 0.0
        """Spent before this call, by those that it resumes."""
        self._since = self._now()

    def begin(self) -> None:
        """Start counting now: the cases are prepared. Time of resumed calls stays counted."""
        self._since = self._now()

    def elapsed_s(self) -> float:
        """Seconds spent so far."""
        return self.before_s + self._now() - self._since

    @contextmanager
    def unpaid(self) -> Iterator[Callable[[], float]]:
        """Work that is not training: free of charge by the processor's clock, not by the wall's.

        Yields:
            Function that returns the seconds since the work began, by this clock.
        """
        begin = self._now()
        yield lambda: self._now() - begin
        if self.kind == "cpu":
            self._since += self._now() - begin

    def _now(self) -> float:
        return time.process_time() if self.kind == "cpu" else time.monotonic()
