"""Picture of the scores of one or several models: every case a dot, by structure."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from segmed.errors import UsageError
from segmed.io.colours import structure_colour

if TYPE_CHECKING:
    import pandas as pd

SPREAD = 0.8
"""Width that the models of one structure take together, on an axis of one unit a structure."""

PANELS = (("dice", "Dice"), ("hd95_mm", "HD95"))
"""Columns that are drawn, with their titles."""


def scores_picture(tables: Mapping[str, pd.DataFrame], *, unit: str = "mm") -> Image.Image:
    """Draw Dice and HD95 of every case, with their medians.

    Args:
        tables: Scores of each model, as from `segmed.metrics.scores_table`.
        unit: Unit of distances.

    Returns:
        A PIL image. Hollow dots are missed or invented structures, whose scores are those of the
        policy for empties; structures that are absent from reference and prediction have no dot.

    Raises:
        UsageError: No structure of any case is scored.
    """
    # Matplotlib takes a second to load; scores are used far more often than drawn.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - see above
    from matplotlib.figure import Figure  # noqa: PLC0415 - see above

    labels = list(dict.fromkeys(str(x) for table in tables.values() for x in table["label"]))
    if not labels:
        raise UsageError("nothing to draw: no structure of any case is scored")
    width = 2.5 + min(0.45 * len(labels) * max(len(tables), 2), 14.0)
    figure = Figure(figsize=(2 * width, 3.6), dpi=110, layout="constrained")
    for place, (column, title) in enumerate(PANELS, 1):
        axis = figure.add_subplot(1, len(PANELS), place)
        for index, (name, table) in enumerate(tables.items()):
            offset = SPREAD * ((index + 0.5) / len(tables) - 0.5)
            colour = tuple(part / 255 for part in structure_colour(index))
            _draw_model(axis, table, labels, column, (name, colour, offset, SPREAD / len(tables)))
        axis.set_xticks(range(len(labels)), labels, rotation=0 if len(labels) < 6 else 60)
        axis.set_xlim(-0.6, len(labels) - 0.4)
        axis.set_ylabel(title if column == "dice" else f"{title} ({unit})")
        axis.set_ylim(*((-0.03, 1.03) if column == "dice" else (0, None)))
        axis.grid(axis="y", linewidth=0.4, alpha=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=min(len(names), 6), frameon=False
    )
    FigureCanvasAgg(figure)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    picture = Image.open(out)
    picture.load()
    return picture


def _draw_model(
    axis: Any,
    table: pd.DataFrame,
    labels: list[str],
    column: str,
    style: tuple[str, tuple[float, ...], float, float],
) -> None:
    """Dots and medians of one model."""
    name, colour, offset, width = style
    for place, label in enumerate(labels):
        rows = table[(table["label"] == label) & ~table["both_empty"].astype(bool)]
        values = rows[column].to_numpy(dtype=float)
        if not len(values):
            continue
        steps = (np.arange(len(values)) * 0.618) % 1.0 - 0.5  # the same at every drawing
        across = place + offset + 0.6 * width * steps
        is_measured = ~rows["substituted"].astype(bool).to_numpy()
        axis.scatter(across[is_measured], values[is_measured], s=12, color=colour, alpha=0.7, lw=0)
        axis.scatter(
            across[~is_measured], values[~is_measured], s=16, facecolors="none", edgecolors=[colour]
        )
        middle = float(np.median(values))
        ends = (place + offset - 0.4 * width, place + offset + 0.4 * width)
        axis.plot(ends, (middle, middle), color=colour, lw=2, label=name if place == 0 else None)
