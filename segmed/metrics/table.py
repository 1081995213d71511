"""The table of scores: one row a case and structure; written and read whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path

import pandas as pd

from segmed.errors import MetricError
from segmed.io.atomic import whole_file
from segmed.metrics.score import FLAGS, METRICS, CaseScore

SUFFIXES = (".csv", ".parquet", ".json")
"""File forms that tables are written in."""


def scores_table(scores: Iterable[CaseScore]) -> pd.DataFrame:
    """Scores as a tidy table, one row a case and structure, columns as in `CaseScore`.

    Raises:
        MetricError: A case and structure occur twice.
    """
    names = [field.name for field in fields(CaseScore)]
    table = pd.DataFrame([asdict(score) for score in scores], columns=names)
    check_table(table)
    return table


def check_table(table: pd.DataFrame) -> None:
    """Refuse a table that cannot be averaged honestly.

    Raises:
        MetricError: A column is missing, or a case and structure occur twice.
    """
    needed = ["case", "label", "is_region", *FLAGS]
    missing = [name for name in needed if name not in table.columns]
    if missing or not any(metric.name in table.columns for metric in METRICS):
        raise MetricError(
            f"the table has columns {list(table.columns)} and lacks {missing or 'every metric'}; "
            "give one made by scores_table"
        )
    twice = table[table.duplicated(["case", "label"])]
    if len(twice):
        row = twice.iloc[0]
        raise MetricError(
            f"case {row['case']!r} has label {row['label']!r} twice; score each case once"
        )


def write_table(table: pd.DataFrame, path: Path | str) -> Path:
    """Write a table as CSV, Parquet or JSON records, by suffix, whole or not at all.

    Args:
        table: Any table of this package.
        path: Ends in `.csv`, `.parquet` or `.json`.

    Returns:
        The path.

    Raises:
        MetricError: Another suffix.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise MetricError(f"cannot write a table as {path.name!r}; use {', '.join(SUFFIXES)}")
    with whole_file(path) as draft:
        _write(table, draft)
    return path


def read_table(path: Path | str) -> pd.DataFrame:
    """Read a table that `write_table` wrote.

    Raises:
        MetricError: Another suffix.
    """
    path = Path(path)
    if path.suffix == ".csv":
        return pd.read_csv(path, dtype={"case": str, "label": str}, keep_default_na=True)
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".json":
        return pd.read_json(path, orient="records", dtype={"case": str, "label": str})
    raise MetricError(f"cannot read a table from {path.name!r}; use {', '.join(SUFFIXES)}")


def _write(table: pd.DataFrame, path: Path) -> None:
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_json(path, orient="records", indent=1, double_precision=15)
