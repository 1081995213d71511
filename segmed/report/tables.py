"""From per-case tables to what the page prints: comparison, warnings, rows worst first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from segmed.errors import MetricError
from segmed.metrics import summarise
from segmed.metrics.score import MEAN_LABEL
from segmed.report.content import UNKNOWN, Cost


@dataclass(frozen=True)
class MetricColumn:
    """A column of the comparison.

    Attributes:
        key: Column of the per-case table.
        title: Heading, with its unit.
        digits: Decimal places.
        higher_is_better: Whether a larger value is the better one.
        hint: What it is, in a sentence.
    """

    key: str
    title: str
    digits: int
    higher_is_better: bool
    hint: str


METRICS = (
    MetricColumn("dice", "Dice", 3, True, "Overlap: twice the common volume over the sum of both"),
    MetricColumn("iou", "IoU", 3, True, "Overlap: common volume over the volume of either"),
    MetricColumn(
        "f1", "F1", 3, True, "Harmonic mean of precision and recall; voxel-wise it equals Dice"
    ),
    MetricColumn(
        "hd_mm", "HD mm", 2, False, "Hausdorff: largest distance between the two surfaces"
    ),
    MetricColumn(
        "hd95_mm", "HD95 mm", 2, False, "The larger of the two 95th percentiles of distance"
    ),
)

OVERALL = "all structures"
"""Name of the row that averages each case over its structures."""

FLAGS = ("missed", "false_positive", "both_empty")


@dataclass(frozen=True)
class Cell:
    """A mean with its spread and interval in words, and whether it is the best."""

    mean: float
    text: str
    spread: str
    interval: str = ""
    is_best: bool = False
    bar: float | None = None


@dataclass(frozen=True)
class LabelRow:
    """One structure of one model."""

    label: str
    cells: tuple[Cell, ...]
    n: int
    missed: int
    false_positive: int
    both_empty: int


@dataclass(frozen=True)
class Block:
    """One model: its rank, known costs by name, and rows (the overall row first)."""

    model: str
    rank: int
    is_winner: bool
    costs: tuple[tuple[str, str], ...]
    rows: tuple[LabelRow, ...]


def labels_of(scores: Mapping[str, pd.DataFrame]) -> list[str]:
    """Names of the structures, in order of appearance."""
    return list(dict.fromkeys(str(v) for table in scores.values() for v in table["label"]))


def metrics_in(scores: Mapping[str, pd.DataFrame], unit: str = "mm") -> tuple[MetricColumn, ...]:
    """The metrics of the comparison that every table has, their titles with the unit."""
    return tuple(
        replace(m, title=m.title.replace(" mm", f" {unit}"))
        for m in METRICS
        if all(m.key in table for table in scores.values())
    )


def per_case_mean(table: pd.DataFrame, metric: str) -> pd.Series:
    """Mean of a metric over the scored labels of each case; regions are left out, as in `mean`."""
    scored = table[~table["both_empty"].astype(bool) & ~table["is_region"].astype(bool)]
    means: pd.Series = scored.groupby("case", sort=False)[metric].mean()
    return means


def mean_dice_by_model(scores: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """Mean Dice over cases of each model that has one scored case at least."""
    means = {name: float(per_case_mean(table, "dice").mean()) for name, table in scores.items()}
    return {name: value for name, value in means.items() if math.isfinite(value)}


def comparison(
    scores: Mapping[str, pd.DataFrame], costs: Mapping[str, Cost], winner: str | None
) -> list[Block]:
    """Every model with its costs and scores, best mean Dice first.

    Args:
        scores: Per-case table of each model.
        costs: Cost of each model; unknown ones are left out.
        winner: Model to mark.

    Returns:
        One block a model; the best mean of every column and structure is marked.
    """
    metrics = metrics_in(scores)
    dice = mean_dice_by_model(scores)
    order = sorted(scores, key=lambda name: -dice.get(name, -1.0))
    rows = {name: _rows(scores[name], metrics) for name in order}
    best = _best(rows, metrics)
    blocks = []
    for rank, name in enumerate(order, start=1):
        cost = costs.get(name, Cost())
        blocks.append(
            Block(
                model=name,
                rank=rank,
                is_winner=name == winner,
                costs=_known_costs(cost),
                rows=tuple(_marked(row, best, metrics, len(order)) for row in rows[name]),
            )
        )
    return blocks


def _known_costs(cost: Cost) -> tuple[tuple[str, str], ...]:
    """Names and values of the costs that were measured."""
    memory = None if cost.peak_memory_mb is None else f"{cost.peak_memory_mb:,.0f} MiB"
    shown = (
        ("parameters", count_text(cost.parameters)),
        ("training", seconds_text(cost.train_seconds)),
        ("per case", seconds_text(cost.seconds_per_case)),
        ("memory", memory or UNKNOWN),
    )
    return tuple((name, text) for name, text in shown if text != UNKNOWN)


def _rows(table: pd.DataFrame, metrics: Sequence[MetricColumn]) -> list[LabelRow]:
    """The overall row, then one a structure (only the structure where there is but one)."""
    try:
        summary = summarise(table)
    except MetricError:  # no structure in any reference or prediction: counts alone remain
        return [
            LabelRow(
                str(label), tuple(Cell(math.nan, UNKNOWN, "") for _ in metrics), 0, *_counts(part)
            )
            for label, part in table.groupby("label", sort=False)
        ]
    labels = list(dict.fromkeys(summary["label"]))
    structures = [label for label in labels if label != MEAN_LABEL]
    if len(structures) > 1 and MEAN_LABEL in labels:
        structures.insert(0, MEAN_LABEL)
    entries = {(e["label"], e["metric"]): e for e in summary.to_dict("records")}
    rows = []
    for label in structures:
        first = entries[label, metrics[0].key]
        counts = (int(first[f"n_{flag}"]) for flag in FLAGS)
        rows.append(
            LabelRow(
                OVERALL if label == MEAN_LABEL else label,
                tuple(_cell(entries[label, metric.key], metric) for metric in metrics),
                int(first["n"]),
                *counts,
            )
        )
    return rows


def _counts(table: pd.DataFrame) -> tuple[int, int, int]:
    counts = [int(table[flag].astype(bool).sum()) for flag in FLAGS]
    return counts[0], counts[1], counts[2]


def _cell(entry: Mapping[Any, Any], metric: MetricColumn) -> Cell:
    """Mean and standard deviation of one label and metric; a dash where nothing was scored."""
    mean, std = float(entry["mean"]), float(entry["std"])
    if math.isnan(mean):
        return Cell(math.nan, UNKNOWN, "")
    low, high = float(entry["ci_low"]), float(entry["ci_high"])
    return Cell(
        mean=mean,
        text=f"{mean:.{metric.digits}f}",
        spread="" if math.isnan(std) else f"{std:.{metric.digits}f}",
        interval=""
        if math.isnan(low) or int(entry["n"]) < 2
        else f"95 % interval of the mean: {low:.{metric.digits}f} to {high:.{metric.digits}f}",
        bar=min(max(mean, 0.0), 1.0) * 100 if metric.higher_is_better else None,
    )


def _best(
    rows: Mapping[str, Sequence[LabelRow]], metrics: Sequence[MetricColumn]
) -> dict[tuple[str, str], float]:
    """The best mean of each structure and metric."""
    best: dict[tuple[str, str], float] = {}
    for row in (row for group in rows.values() for row in group):
        for metric, cell in zip(metrics, row.cells, strict=True):
            if math.isnan(cell.mean):
                continue
            key = (row.label, metric.key)
            pick = max if metric.higher_is_better else min
            best[key] = pick(best.get(key, cell.mean), cell.mean)
    return best


def _marked(
    row: LabelRow,
    best: Mapping[tuple[str, str], float],
    metrics: Sequence[MetricColumn],
    models: int,
) -> LabelRow:
    cells = tuple(
        replace(cell, is_best=models > 1 and best.get((row.label, metric.key)) == cell.mean)
        for metric, cell in zip(metrics, row.cells, strict=True)
    )
    return replace(row, cells=cells)


def warnings_from(scores: Mapping[str, pd.DataFrame], said: Sequence[str] = ()) -> list[str]:
    """List the warnings that follow from the scores: missed and false structures.

    Args:
        scores: Per-case table of each model.
        said: Warnings that the page shows anyway; what they say of a model is not said twice.

    Returns:
        Sentences, the gravest model first.
    """
    found = []
    for name, table in scores.items():
        missed, invented, absent = _counts(table)
        if missed and not _is_said(f"{name} missed", said):
            found.append((missed, _missed_sentence(name, table, scores)))
        if invented and not _is_said(f"{name} found", said):
            sentence = (
                f"{name} found a structure in {invented} of {invented + absent} places where the "
                f"reference has none ({_by_label(table, 'false_positive')}); "
                "each counts as Dice 0 and as a distance of the image diagonal."
            )
            found.append((invented, sentence))
    return [sentence for _, sentence in sorted(found, key=lambda pair: -pair[0])]


def _is_said(start: str, said: Sequence[str]) -> bool:
    return any(sentence.startswith(start) for sentence in said)


def _missed_sentence(name: str, table: pd.DataFrame, scores: Mapping[str, pd.DataFrame]) -> str:
    missed, invented, absent = _counts(table)
    sentence = (
        f"{name} missed {missed} of {len(table) - invented - absent} structures entirely "
        f"({_by_label(table, 'missed')}); "
        "each counts as Dice 0 and as a distance of the image diagonal."
    )
    last = [metric.title for metric in metrics_in(scores) if _is_last(name, scores, metric)]
    if len(scores) > 1 and last:
        everywhere = len(last) == len(metrics_in(scores))
        sentence += f" It ranks last on {'every metric' if everywhere else ', '.join(last)}."
    return sentence


def scores_in_words(table: pd.DataFrame, case: str, unit: str = "mm") -> str:
    """The scores of one case, for a caption: `anterior Dice 0.812, HD95 2.20 mm; posterior ...`."""
    parts = []
    for record in table[table["case"] == case].to_dict("records"):
        note = _note(record)
        if note and not record.get("false_positive"):
            parts.append(f"{record['label']} {note}")
            continue
        note = f" ({note})" if note else ""
        parts.append(
            f"{record['label']} Dice {record['dice']:.3f}, "
            f"HD95 {record['hd95_mm']:.2f} {unit}{note}"
        )
    return "; ".join(parts)


def _by_label(table: pd.DataFrame, flag: str) -> str:
    counts = table.groupby("label", sort=False)[flag].sum()
    return ", ".join(f"{label} {int(count)}" for label, count in counts.items() if count)


def _is_last(name: str, scores: Mapping[str, pd.DataFrame], metric: MetricColumn) -> bool:
    """Return whether a model's mean is worse than every other's."""
    means = {other: float(per_case_mean(t, metric.key).mean()) for other, t in scores.items()}
    own = means.pop(name)
    if metric.higher_is_better:
        return all(own < other for other in means.values())
    return all(own > other for other in means.values())


def case_rows(scores: Mapping[str, pd.DataFrame]) -> tuple[list[str], list[list[Any]]]:
    """Every scored structure of every case and model, worst first.

    Args:
        scores: Per-case table of each model.

    Returns:
        Keys of the columns, and the rows: case, model, label, one number (or None) a metric, and
        a note in words. Sorted by Dice, then by descending HD95.
    """
    metrics = metrics_in(scores)
    columns = ["case", "model", "label", *(metric.key for metric in metrics), "note"]
    rows = [
        [
            str(record["case"]),
            name,
            str(record["label"]),
            *(_rounded(record[metric.key], metric.digits + 1) for metric in metrics),
            _note(record),
        ]
        for name, table in scores.items()
        for record in table.to_dict("records")
    ]
    dice = columns.index("dice") if "dice" in columns else None
    far = columns.index("hd95_mm") if "hd95_mm" in columns else None
    rows.sort(key=lambda row: (_sortable(row, dice, 2.0), -_sortable(row, far, 0.0)))
    return columns, rows


def _sortable(row: Sequence[Any], index: int | None, absent: float) -> float:
    return absent if index is None or row[index] is None else float(row[index])


def _rounded(value: Any, digits: int) -> float | None:
    number = float(value) if value is not None else math.nan
    return round(number, digits) if math.isfinite(number) else None


def _note(record: Mapping[Any, Any]) -> str:
    if record.get("missed"):
        return "missed"
    if record.get("false_positive"):
        return "false positive"
    return "not in either, not scored" if record.get("both_empty") else ""


def count_text(count: int | None) -> str:
    """A count with its magnitude: `5.80 M`, `812 k`, or a dash."""
    if count is None:
        return UNKNOWN
    if count >= 1_000_000:
        return f"{count / 1e6:.2f} M"
    return f"{count / 1e3:.0f} k" if count >= 10_000 else str(count)


def seconds_text(seconds: float | None) -> str:
    """A duration to read: `0.42 s`, `83 s`, `12 min 5 s`, `3 h 10 min`, or a dash."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
