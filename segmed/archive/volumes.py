"""The table of volumes or areas of an archive: a row for each study, the doubtful ones first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from segmed.archive.ledger import Entry, Ledger
from segmed.errors import unknown_name
from segmed.findings.record import CUBIC_MM_PER_ML
from segmed.formats import RASTER_FORMATS
from segmed.io.atomic import whole_file
from segmed.structures import LabelClass

OUTDATED = "outdated:input"
"""Flag of a result whose input has changed since, and is refused as it is now."""

ROWS_AT_ONCE = 1000
KINDS = ("csv", "parquet")

VOLUME_END = "_ml"
AREA_ENDS = ("_pixels", "_mm2")
"""Ends of the columns of a structure's size."""

COLUMN_ENDS = {
    "_ml_low": "volume_low_ml",
    "_ml_high": "volume_high_ml",
    "_dice": "dice",
    "_dice_low": "low",
    "_dice_high": "high",
}
"""Fields of a structure's predicted quality, by the end of their column's name."""

QualityOf = Callable[[Entry], dict[str, Any] | None]
"""Predicted quality of a result as JSON values."""


def write_volumes(
    ledger: Ledger,
    path: Path,
    labels: Sequence[LabelClass],
    quality_of: QualityOf | None = None,
    *,
    of_planes: bool = False,
) -> Path:
    """Write the volumes table, a thousand rows in memory at a time.

    Columns: study, key, package, form, output, `NAME_ml` for each structure, flags (separated by
    blanks), num_flags, `spacing_mm_0` and so on, seconds, notes (separated by semicolons). Of a
    model that predicts quality also `predicted_quality` and for each structure `NAME_ml_low`,
    `NAME_ml_high`, `NAME_dice`, `NAME_dice_low` and `NAME_dice_high`. Rows with flags come first,
    then all in the order of their keys. Studies that were refused, failed or replaced have no row.

    Images of one plane have areas: `NAME_pixels` and, where the format states the size of a pixel,
    `NAME_mm2` instead of `NAME_ml`. Raster images and DICOM images of one plane state none.

    Outputs may be named like their inputs, so the file is readable to its owner alone.

    Args:
        ledger: The ledger.
        path: `.csv` or `.parquet`.
        labels: The structures.
        quality_of: Predicted quality of a result; None of a model that predicts none.
        of_planes: The images are of one plane.

    Returns:
        The file.

    Raises:
        UsageError: The suffix is another one.
    """
    check_kind(path.suffix.removeprefix("."))
    schema = _schema(labels, has_quality=quality_of is not None, of_planes=of_planes)
    with whole_file(path, private=True) as draft:
        if path.suffix == ".csv":
            writer: Any = pa_csv.CSVWriter(draft, schema)
        else:
            writer = pa_parquet.ParquetWriter(draft, schema)
        with writer:
            rows = _rows(ledger, labels, quality_of)
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


def _schema(labels: Sequence[LabelClass], *, has_quality: bool, of_planes: bool) -> pa.Schema:
    texts = [(name, pa.string()) for name in ("study", "key", "package", "form", "output")]
    sizes = AREA_ENDS if of_planes else (VOLUME_END,)
    volumes = [(f"{item.name}{end}", pa.float64()) for item in labels for end in sizes]
    spacing = [(f"spacing_mm_{axis}", pa.float64()) for axis in range(2 if of_planes else 3)]
    flags = [("flags", pa.string()), ("num_flags", pa.int64())]
    rest = [*spacing, ("seconds", pa.float64()), ("notes", pa.string())]
    stated = [end for end in COLUMN_ENDS if not (of_planes and end.startswith(VOLUME_END))]
    ends = [f"{item.name}{end}" for item in labels for end in stated]
    quality = [(name, pa.float64()) for name in ("predicted_quality", *ends) if has_quality]
    return pa.schema([*texts, *volumes, *quality, *flags, *rest])


def _rows(
    ledger: Ledger, labels: Sequence[LabelClass], quality_of: QualityOf | None
) -> Iterator[dict[str, Any]]:
    outdated = ledger.outdated()
    for is_flagged in (True, False):
        for entry in ledger.entries(state="done"):
            flags = [*entry.measures.get("flags", []), *[OUTDATED] * (entry.key in outdated)]
            if bool(flags) is is_flagged:
                stated = None if quality_of is None else quality_of(entry)
                yield _row(entry, labels, flags) | _quality(stated)


def _row(entry: Entry, labels: Sequence[LabelClass], flags: Sequence[str]) -> dict[str, Any]:
    measures = entry.measures
    spacing = [] if entry.form in RASTER_FORMATS else measures.get("spacing_mm", [])
    return {
        "study": entry.study,
        "key": entry.key,
        "package": entry.package,
        "form": entry.form,
        "output": entry.output,
        **{name: size for item in labels for name, size in _sizes(entry, item.name).items()},
        "flags": " ".join(flags),
        "num_flags": len(flags),
        **{f"spacing_mm_{axis}": edge for axis, edge in enumerate(spacing)},
        "seconds": entry.seconds,
        "notes": "; ".join(measures.get("notes", [])),
    }


def _sizes(entry: Entry, name: str) -> dict[str, float | None]:
    """Columns of the volume of a structure, or of its area on an image of one plane.

    Measures give a plane a thickness of 1 mm, and pixels without a size edges of 1 mm.
    """
    volume = entry.measures.get("volumes_ml", {}).get(name)
    spacing = entry.measures.get("spacing_mm", [])
    if volume is None or len(spacing) != 2:
        return {f"{name}{VOLUME_END}": volume}
    area = volume * CUBIC_MM_PER_ML
    pixels, square_mm = AREA_ENDS
    return {
        f"{name}{pixels}": float(round(area / prod(spacing))),
        f"{name}{square_mm}": None if entry.form in RASTER_FORMATS else area,
    }


def _quality(quality: Mapping[str, Any] | None) -> dict[str, Any]:
    """Columns of a predicted quality."""
    if quality is None:
        return {}
    ends = {
        f"{name}{end}": item.get(field)
        for name, item in quality["structures"].items()
        for end, field in COLUMN_ENDS.items()
    }
    return {"predicted_quality": quality["score"], **ends}
