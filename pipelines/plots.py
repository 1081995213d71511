"""Plots that go into MLflow runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def curves_figure(history: Sequence[Mapping[str, Any]], title: str, path: Path) -> Path:
    """Write a PNG of losses and of each label's Dice over the epochs.

    Args:
        history: Epochs with keys `epoch train_loss val_loss val_dice`.
        title: Heading of the plot.
        path: Where to.
    """
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    epochs = [entry["epoch"] for entry in history]
    for key, name in (("train_loss", "training"), ("val_loss", "validation")):
        left.plot(epochs, [_number(entry.get(key)) for entry in history], label=name)
    left.set(xlabel="epoch", ylabel="loss", title=title)
    left.legend()
    for label in sorted({label for entry in history for label in entry["val_dice"]}):
        dice = [_number(entry["val_dice"].get(label)) for entry in history]
        right.plot(epochs, dice, marker=".", label=label)
    right.set(xlabel="epoch", ylabel="Dice", ylim=(0, 1), title="validation")
    right.legend()
    figure.savefig(path, dpi=110)
    return path


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
