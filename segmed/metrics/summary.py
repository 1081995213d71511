"""Means, each with the number of its cases."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from segmed.errors import MetricError
from segmed.metrics.resample import bootstrap_means, interval
from segmed.metrics.score import MEAN_LABEL, METRICS
from segmed.metrics.table import check_table

RECORDED_METRICS = (
    "dice",
    "iou",
    "f1",
    "precision",
    "recall",
    "hd_mm",
    "hd95_mm",
    "assd_mm",
    "nsd",
)
"""Metrics that are recorded in `comparison.json`, packages and trackers."""

COUNTS = {"n_missed": "missed", "n_false_positive": "false_positive", "n_both_empty": "both_empty"}


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Summary of a table of scores: one row a label and metric.

    Columns: label, metric, mean, median, std, q25, q75, n, n_missed, n_false_positive,
    n_both_empty, ci_low, ci_high. `n` counts the scored rows, substituted ones among them; rows
    where both are empty are in `n_both_empty` only. The interval is the 95 % bootstrap interval of
    the mean over cases; with one case it and the standard deviation are NaN. The label `mean`
    averages the labels (never the regions) within each case first, over those that were scored,
    and its three counts add up those of the labels. A label that no case could score has n = 0 and
    no mean.

    Args:
        table: As from `scores_table`.

    Returns:
        The summary, labels in the order of the table, then `mean`.

    Raises:
        MetricError: Nothing is left to average, a score is missing, or the table is not one.
    """
    check_table(table)
    metrics = [metric.name for metric in METRICS if metric.name in table.columns]
    scored = scored_rows(table, metrics)
    if scored.empty:
        raise MetricError(
            f"no score to average: {len(table)} rows, all with prediction and reference empty; "
            "check the label values, or leave the summary out"
        )
    rows = [
        row
        for label, part in table.groupby("label", sort=False)
        for row in _rows(str(label), scored[scored["label"] == label][metrics], part)
    ]
    labels = scored[~scored["is_region"].astype(bool)]
    if len(labels):
        mean = labels.groupby("case", sort=False)[metrics].mean()
        rows += _rows(MEAN_LABEL, mean, table[~table["is_region"].astype(bool)])
    return pd.DataFrame(rows)


def scored_rows(table: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    """The rows that have scores.

    Raises:
        MetricError: A score is missing or infinite in a row that is not empty on both sides.
    """
    scored = table[~table["both_empty"].astype(bool)]
    values = scored[metrics].to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        bad = scored[~np.isfinite(values).all(axis=1)].iloc[0]
        raise MetricError(
            f"case {bad['case']!r}, label {bad['label']!r} has a score that is not a number; "
            "score the case again with evaluate_case"
        )
    return scored


def _rows(label: str, values: pd.DataFrame, rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    counts = {name: int(rows[flag].astype(bool).sum()) for name, flag in COUNTS.items()}
    array = values.to_numpy(dtype=np.float64)
    cases = len(array)
    nothing = np.full(array.shape[1], np.nan)
    low, high = interval(bootstrap_means(array)) if cases > 1 else (nothing, nothing)
    spread = array.std(axis=0, ddof=1) if cases > 1 else nothing
    for column, metric in enumerate(values.columns):
        one = array[:, column]
        quartiles = np.percentile(one, [25, 50, 75]) if cases else [np.nan] * 3
        yield {
            "label": label,
            "metric": metric,
            "mean": one.mean() if cases else np.nan,
            "median": quartiles[1],
            "std": spread[column],
            "q25": quartiles[0],
            "q75": quartiles[2],
            "n": cases,
            **counts,
            "ci_low": low[column],
            "ci_high": high[column],
        }
