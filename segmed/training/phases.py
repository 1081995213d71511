"""Seconds of each phase of a training, by the device's own clock."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from segmed.training.device import Device

STEP_PHASES = ("augment", "forward", "backward", "update")
"""What a step does, in order: copies and random changes; loss included in `forward`; `update` is
clipping, the optimiser and the averaged weights."""

PHASES = ("data", *STEP_PHASES, "graph", "validation", "checkpoint")
"""All phases of an epoch; `data` is waiting for the next batch, `graph` the steps of a captured
graph, whose phases cannot be separated."""


class StepTimer:
    """Marks the ends of a step's phases without waiting for the GPU in between.

    Args:
        device: Where the step runs; on a GPU the marks are events of its stream.

    Attributes:
        is_paused: Marks are ignored.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.is_paused = False
        self._marks: list[float | torch.cuda.Event] = []

    def begin(self) -> None:
        """A step begins."""
        self._marks = []
        self.mark()

    def mark(self) -> None:
        """A phase ends."""
        if self.is_paused:  # a captured graph cannot contain timed events
            return
        if not self._device.is_cuda:
            self._marks.append(time.monotonic())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device.torch_device))
        self._marks.append(event)

    def seconds(self) -> dict[str, float]:
        """Seconds of each phase of the step that ended last; waits for the GPU."""
        if self._device.is_cuda and self._marks:
            torch.cuda.synchronize(self._device.torch_device)
        spans = [_between(a, b) for a, b in zip(self._marks, self._marks[1:], strict=False)]
        return dict(zip(STEP_PHASES, spans, strict=True))


def _between(first: float | torch.cuda.Event, second: float | torch.cuda.Event) -> float:
    if isinstance(first, torch.cuda.Event):
        assert isinstance(second, torch.cuda.Event)
        return float(first.elapsed_time(second)) / 1000.0
    assert isinstance(second, float)
    return second - first


def totals(epochs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Seconds of each phase over several epochs, rounded to milliseconds."""
    return {
        name: round(sum(phases.get(name, 0.0) for phases in epochs), 3)
        for name in PHASES
        if any(name in phases for phases in epochs)
    }
