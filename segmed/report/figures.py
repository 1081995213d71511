"""Figures of the report: small SVGs whose ink follows the page, and one PNG for trackers."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from segmed.io.digest import sha256_of_text
from segmed.report.content import Cost, History

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a7fd1", "#8c8c8c")
"""Okabe and Ito's palette (2008), its yellow and black replaced: readable on white and on black."""

MARKERS = "osD^vPXh"

INK, FAINT, _GRID = "#010203", "#040506", "#070809"
_PAGE_COLOURS = {
    INK: "var(--ink)",
    FAINT: "var(--muted)",
    _GRID: "var(--line)",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(COLOURS)},
}
_MOST_VECTOR_POINTS = 3000
MOST_PANELS = 8
"""Structures with a panel each; more are lines of one panel."""

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "segmed",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": FAINT,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def style_of(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each name, in the order given; both differ for the first eight."""
    return {
        name: (COLOURS[i % len(COLOURS)], MARKERS[(i + i // len(COLOURS)) % len(MARKERS)])
        for i, name in enumerate(dict.fromkeys(names))
    }


def records(history: Sequence[Any]) -> list[dict[str, Any]]:
    """Epochs as plain dictionaries, from mappings or dataclass records."""
    return [
        dataclasses.asdict(epoch)
        if dataclasses.is_dataclass(epoch) and not isinstance(epoch, type)
        else dict(epoch)
        for epoch in history
    ]


def mean_dice(epoch: Mapping[str, Any]) -> float:
    """Mean validation Dice of an epoch over its labels; NaN where it was not validated."""
    dice = epoch.get("val_dice")
    values = list(dice.values()) if isinstance(dice, Mapping) else [dice]
    numbers = [float(value) for value in values if value is not None]
    return float(np.mean(numbers)) if numbers else float("nan")


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def new_figure(width: float, height: float, columns: int) -> tuple[Figure, list[Any]]:
    """Figure with panels side by side, and the axes of these."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


def as_svg(figure: Figure, description: str) -> str:
    """The figure as an SVG element: page colours for its ink, the page's font, a description."""
    out = io.StringIO()
    FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for ours, theirs in _PAGE_COLOURS.items():
        text = text.replace(ours, theirs)
    text = re.sub(r"font: ([^;\"]*?)(\d+px)[^;\"]*", r"font: \2 var(--font)", text)
    text = _with_own_ids(text)
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _with_own_ids(text: str) -> str:
    """The SVG with the ids that it refers to made its own, and the others left out."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    own = sha256_of_text(text)[:8]
    text = re.sub(r'\sid="([^"]*)"', lambda m: f' id="{own}-{m[1]}"' if m[1] in used else "", text)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{own}-", text)


def _draw_curves(histories: Mapping[str, History], width: float, height: float) -> Figure:
    """Loss and Dice over epochs, Dice over time; one colour a model, one line a run."""
    figure, axes = new_figure(width, height, 3)
    styles = style_of([run.split("/")[0] for run in histories])
    named: set[str] = set()
    for run, history in histories.items():
        model = run.split("/")[0]
        epochs = records(history)
        if not epochs:
            continue
        colour = styles[model][0]
        x = [_number(epoch.get("epoch", i)) for i, epoch in enumerate(epochs, start=1)]
        train = [_number(epoch.get("train_loss")) for epoch in epochs]
        validation = [_number(epoch.get("val_loss")) for epoch in epochs]
        dice = [mean_dice(epoch) for epoch in epochs]
        minutes = [_number(epoch.get("seconds")) / 60 for epoch in epochs]  # since the start
        label = model if model not in named else None
        named.add(model)
        look: dict[str, Any] = {"color": colour, "marker": "o", "markersize": 3.5}
        axes[0].plot(*_measured(x, train), ls=":", alpha=0.9, **look | {"markersize": 2})
        axes[0].plot(*_measured(x, validation), lw=1.6, **look)
        axes[1].plot(*_measured(x, dice), lw=1.6, label=label, **look)
        axes[2].plot(*_measured(minutes, dice), lw=1.6, **look)
    axes[0].set(title="Loss (training dotted, validation solid)", xlabel="epoch", ylabel="loss")
    axes[1].set(title="Validation Dice", xlabel="epoch", ylabel="mean Dice of the structures")
    axes[2].set(
        title="Validation Dice over time", xlabel="training time in min", ylabel="mean Dice"
    )
    for axis in axes[1:]:
        axis.set_ylim(0, 1)
    axes[2].set_xlim(left=0)
    for axis in axes[:2]:
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True, min_n_ticks=1))
    if named:
        figure.legend(loc="outside lower center", ncols=min(len(named), 7))
    return figure


def _measured(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """The points that were measured; epochs without validation neither show nor break the line."""
    points = [(a, b) for a, b in zip(x, y, strict=True) if np.isfinite(a) and np.isfinite(b)]
    return [a for a, _ in points], [b for _, b in points]


def curves_svg(histories: Mapping[str, History]) -> str:
    """Training curves for the page; `histories` as in `curves_png`."""
    with mpl.rc_context(STYLE):
        figure = _draw_curves(histories, 11.5, 3.5)
        return as_svg(figure, "Training and validation loss and validation Dice of each run")


def curves_png(histories: Mapping[str, History]) -> bytes:
    """Training curves of several runs as a picture.

    Args:
        histories: Epochs of each run, as mappings or records with `epoch train_loss val_loss
            val_dice seconds`. Runs named `model/anything` share the model's colour.

    Returns:
        The bytes of a PNG file, about 1400 x 440 pixels.
    """
    style = {
        key: {INK: "#1a1c20", FAINT: "#555a63", _GRID: "#dde0e5"}.get(str(value), value)
        for key, value in STYLE.items()
    } | {"figure.facecolor": "white"}
    with mpl.rc_context(style):
        figure = _draw_curves(histories, 11.5, 3.6)
        out = io.BytesIO()
        FigureCanvasAgg(figure)
        figure.savefig(out, dpi=120, format="png")
        return out.getvalue()


def distributions_svg(scores: Mapping[str, pd.DataFrame], metric: str, title: str) -> str:
    """Every case of every model as a dot beside its quartile box, one panel a label.

    Args:
        scores: Per-case table of each model, with columns `label` and `metric`.
        metric: Column to show.
        title: What the column is, with its unit.

    Returns:
        An SVG element.
    """
    labels = list(dict.fromkeys(label for table in scores.values() for label in table["label"]))
    if len(labels) > MOST_PANELS:
        return _ranges_svg(scores, metric, title, labels)
    styles = style_of(list(scores))
    points = sum(len(table) for table in scores.values())
    jitter = np.random.default_rng(0)
    with mpl.rc_context(STYLE):
        rows = 0.36 * len(scores) + 0.95
        figure, axes = new_figure(11.5, max(rows, 1.9), len(labels))
        for axis in axes[1:]:
            axis.sharex(axes[0])
        for axis, label in zip(axes, labels, strict=True):
            for place, (model, table) in enumerate(scores.items()):
                column = table.loc[table["label"] == label, metric].astype(float)
                values = column[np.isfinite(column)].to_numpy()
                if values.size == 0:
                    continue
                colour = styles[model][0]
                spread = place + jitter.uniform(-0.18, 0.18, values.size)
                axis.plot(
                    values,
                    spread,
                    ls="",
                    marker="o",
                    ms=3.4 if points < 800 else 2,
                    mew=0,
                    color=colour,
                    alpha=0.55,
                    rasterized=points > _MOST_VECTOR_POINTS,
                )
                low, middle, high = np.percentile(values, (25, 50, 75))
                axis.plot((low, high), (place, place), color=INK, lw=1.2, zorder=4)
                axis.plot(middle, place, "d", ms=6, mew=1.2, color=colour, mec=INK, zorder=5)
            axis.set_title(label)
            axis.set_yticks(range(len(scores)), list(scores))
            axis.set_ylim(len(scores) - 0.5, -0.5)
            axis.set_xlabel(title)
            if metric.endswith("_mm"):
                _square_root_axis(axis)
            axis.grid(visible=False, axis="y")
            if axis is not axes[0]:
                axis.tick_params(labelleft=False)
        return as_svg(figure, f"{title} of every case, by model and structure")


def _ranges_svg(
    scores: Mapping[str, pd.DataFrame], metric: str, title: str, labels: Sequence[str]
) -> str:
    """Median and quartiles of many structures, a line each, the lowest median at the top."""
    styles = style_of(list(scores))
    quartiles = {
        model: table.assign(value=table[metric].astype(float))
        .loc[lambda rows: np.isfinite(rows["value"])]
        .groupby("label")["value"]
        .quantile([0.25, 0.5, 0.75])
        .unstack()
        for model, table in scores.items()
    }
    first = next(iter(quartiles.values()))[0.5]
    ordered = sorted(labels, key=lambda label: (first.get(label, np.inf), label))
    step = 0.8 / len(scores)
    with mpl.rc_context(STYLE):
        figure, (axis,) = new_figure(
            11.5, 0.17 * len(labels) * max(1.0, 0.6 * len(scores)) + 1.2, 1
        )
        for place, (model, found) in enumerate(quartiles.items()):
            rows = found.reindex(ordered)
            at = np.arange(len(ordered)) + step * (place - (len(scores) - 1) / 2)
            axis.hlines(at, rows[0.25], rows[0.75], color=styles[model][0], lw=2, alpha=0.6)
            axis.plot(rows[0.5], at, "d", ms=4, mew=0.8, color=styles[model][0], label=model)
        axis.set_yticks(range(len(ordered)), ordered, fontsize=8)
        axis.set_ylim(len(ordered) - 0.5, -0.5)
        axis.set_xlabel(title)
        if metric.endswith("_mm"):
            _square_root_axis(axis)
        if len(scores) > 1:
            figure.legend(loc="outside upper left", ncols=min(len(scores), 7))
        return as_svg(figure, f"{title}: median and quartiles of each structure, by model")


def _square_root_axis(axis: Any) -> None:
    """Distances on a square-root axis: a missed structure does not squeeze the others."""
    axis.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
    high = axis.dataLim.x1 * 1.08 if np.isfinite(axis.dataLim.x1) else 1.0
    ticks = [t for t in (0, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if t <= high]
    ticks = [t for t in ticks if t == 0 or t > high / 100]
    axis.set_xlim(0, max(high, 1.0))
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_xlabel(f"{axis.get_xlabel()} (square-root axis)")


def _logarithmic_axis(axis: Any) -> None:
    """A logarithmic x axis with plain numbers at 1, 2 and 5."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())


def paired_svg(first: pd.Series, second: pd.Series, title: str) -> str:
    """One model against another on the same cases: a dot a case, the diagonal for equality.

    Args:
        first: Score of each case, indexed by case, named after the model.
        second: The same of the other model.
        title: What the score is, with its unit.

    Returns:
        An SVG element.
    """
    both = pd.concat([first, second], axis=1, join="inner").dropna()
    with mpl.rc_context(STYLE):
        figure, (axis,) = new_figure(3.8, 3.4, 1)
        x, y = both.iloc[:, 0].to_numpy(float), both.iloc[:, 1].to_numpy(float)
        edges = np.array([min(x.min(), y.min()), max(x.max(), y.max())]) if len(both) else (0, 1)
        axis.plot(edges, edges, color=FAINT, lw=1, ls="--", zorder=1)
        axis.scatter(
            x,
            y,
            s=22,
            color=COLOURS[0],
            alpha=0.75,
            linewidths=0,
            zorder=3,
            rasterized=len(x) > _MOST_VECTOR_POINTS,
        )
        axis.set(title=title, xlabel=str(first.name), ylabel=str(second.name))
        axis.set_aspect("equal", adjustable="datalim")
        return as_svg(figure, f"{title}: {second.name} against {first.name}, one dot a case")


LEAST_DICE_SPAN = 0.02
"""Dice that an axis spans at least: models that are equal look equal."""


def _differ(values: Mapping[str, float]) -> bool:
    """Return whether costs differ enough to be worth an axis: equal budgets are not."""
    return len(values) == 1 or max(values.values()) > 1.2 * min(values.values())


def cost_svg(costs: Mapping[str, Cost], dice: Mapping[str, float]) -> str:
    """Dice against parameters and against training time.

    Args:
        costs: Cost of each model.
        dice: Mean Dice of each model.

    Returns:
        An SVG element; empty when no model has both.
    """
    sides = [
        (
            "parameters in millions",
            {name: c.parameters / 1e6 for name, c in costs.items() if c.parameters},
        ),
        (
            "training time in s",
            {name: c.train_seconds for name, c in costs.items() if c.train_seconds},
        ),
        (
            "time per case in s",
            {name: c.seconds_per_case for name, c in costs.items() if c.seconds_per_case},
        ),
    ]
    sides = [
        (title, values) for title, values in sides if set(values) & set(dice) and _differ(values)
    ]
    if not sides:
        return ""
    styles = style_of(list(dice))
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(11.5, 3.3, len(sides))
        for axis, (title, values) in zip(axes, sides, strict=True):
            for name, x in values.items():
                if name in dice:
                    colour, marker = styles[name]
                    axis.plot(x, dice[name], marker, ms=8, color=colour, label=name, ls="")
            axis.set(xlabel=title, ylabel="mean Dice")
            axis.margins(0.12, 0.15)
            low, high = axis.get_ylim()
            spare = max(0.0, LEAST_DICE_SPAN - (high - low)) / 2
            axis.set_ylim(low - spare, high + spare)
            if max(values.values()) > 5 * min(values.values()):
                _logarithmic_axis(axis)
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 7))
        return as_svg(figure, "Mean Dice against parameters and time of each model")
