"""Training budget in seconds or epochs, and the progress within it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from segmed.errors import UsageError
from segmed.training.clock import ClockKind

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Budget:
    """A budget in seconds or in epochs; exactly one of them.

    Attributes:
        seconds: Seconds by `clock`.
        epochs: Epochs of the plan's `iterations_per_epoch` steps.
        clock: `wall`: seconds once the cases are prepared, validation included. `cpu`: CPU seconds
            of the training itself, for comparisons on a machine that is shared.

    Raises:
        UsageError: None or both are given, or a value is not positive.
    """

    seconds: float | None = None
    epochs: int | None = None
    clock: ClockKind = "wall"

    def __post_init__(self) -> None:
        if (self.seconds is None) == (self.epochs is None):
            raise UsageError("give a budget either in time (--budget 10m) or in epochs (--epochs)")
        amount = self.seconds if self.seconds is not None else self.epochs
        if amount is None or amount <= 0:
            raise UsageError(f"a budget must be positive, got {amount}")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """A budget from text such as `90s`, `10m`, `1h30m`, `2.5h` or `5m-cpu`.

        Args:
            text: Amounts with units s, m or h; `-cpu` at the end for CPU seconds of training.

        Returns:
            The budget in seconds.

        Raises:
            UsageError: The text is not a duration, or not positive.
        """
        if not re.fullmatch(r"(\d+(\.\d+)?[smh])+(-cpu)?", text.strip()):
            raise UsageError(
                f"budget {text!r} is not a duration: write 90s, 10m, 1h30m, 2.5h, or 10m-cpu"
            )
        parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text)
        return cls(
            seconds=sum(float(amount) * _UNITS[unit] for amount, unit in parts),
            clock="cpu" if text.strip().endswith("-cpu") else "wall",
        )

    def progress(self, *, elapsed_s: float, step: int, steps_per_epoch: int) -> float:
        """Share of the budget that is spent, 0 to 1."""
        if self.seconds is not None:
            return min(1.0, elapsed_s / self.seconds)
        assert self.epochs is not None
        return min(1.0, step / (self.epochs * steps_per_epoch))
