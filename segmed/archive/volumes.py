"""The volumes table of an archive: one row a segmented study, the doubtful ones first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from segmed.archive.ledger import Entry, Ledger
from segmed.errors import unknown_name
from segmed.io.atomic import whole_file
from segmed.structures import LabelClass

OUTDATED = "outdated:input"
"""Flag of a result whose input has changed since, and is refused as it is now."""

ROWS_AT_ONCE = 1000
KINDS = ("csv", "parquet")


def write_volumes(ledger: Ledger, path: Path, labels: Sequence[LabelClass]) -> Path:
    """Write the volumes table, a thousand rows in memory at a time.

    Columns: study, key, package, form, output, `NAME_ml` for each structure, flags (separated by
    blanks), num_flags, `spacing_mm_0` and so on, seconds, notes (separated by semicolons). Rows
    with flags come first, then all in the order of their keys. Studies that were refused, failed
    or replaced have no row. Outputs may be named like their inputs, so the file is readable to its
    owner alone.

    Args:
        ledger: The ledger.
        path: `.csv` or `.parquet`.
        labels: The structures.

    Returns:
        The file.

    Raises:
        UsageError: The suffix is another one.
    """
    check_kind(path.suffix.removeprefix("."))
    schema = _schema(labels)
    with whole_file(path, private=True) as draft:
        if path.suffix == ".csv":
            writer: Any = pa_csv.CSVWriter(draft, schema)
        else:
            writer = pa_parquet.ParquetWriter(draft, schema)
        with writer:
            rows = _rows(ledger, labels)
            while batch := list(islice(rows, ROWS_AT_ONCE)):
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
    return path


def check_kind(kind: str) -> None:
    """Refuse a kind of table that there is not.

    Raises:
        UsageError: It is neither `csv` nor `parquet`.
    """
    if kind not in KINDS:
        raise unknown_name("kind of table", kind, KINDS)


def _schema(labels: Sequence[LabelClass]) -> pa.Schema:
    texts = [(name, pa.string()) for name in ("study", "key", "package", "form", "output")]
    volumes = [(f"{item.name}_ml", pa.float64()) for item in labels]
    spacing = [(f"spacing_mm_{axis}", pa.float64()) for axis in range(3)]
    flags = [("flags", pa.string()), ("num_flags", pa.int64())]
    return pa.schema(
        [*texts, *volumes, *flags, *spacing, ("seconds", pa.float64()), ("notes", pa.string())]
    )


def _rows(ledger: Ledger, labels: Sequence[LabelClass]) -> Iterator[dict[str, Any]]:
    outdated = ledger.outdated()
    for is_flagged in (True, False):
        for entry in ledger.entries(state="done"):
            flags = [*entry.measures.get("flags", []), *[OUTDATED] * (entry.key in outdated)]
            if bool(flags) is is_flagged:
                yield _row(entry, labels, flags)


def _row(entry: Entry, labels: Sequence[LabelClass], flags: Sequence[str]) -> dict[str, Any]:
    measures = entry.measures
    spacing = measures.get("spacing_mm", [])
    return {
        "study": entry.study,
        "key": entry.key,
        "package": entry.package,
        "form": entry.form,
        "output": entry.output,
        **{f"{item.name}_ml": measures.get("volumes_ml", {}).get(item.name) for item in labels},
        "flags": " ".join(flags),
        "num_flags": len(flags),
        **{f"spacing_mm_{axis}": edge for axis, edge in enumerate(spacing)},
        "seconds": entry.seconds,
        "notes": "; ".join(measures.get("notes", [])),
    }
