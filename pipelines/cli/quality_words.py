"""Predicted quality of the results of `segmed predict`: lines, and a table beside them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segmed.io.atomic import write_whole

QUALITY_TABLE = "quality.csv"
"""Table beside the results, one row a structure of each."""

COLUMNS = (
    "input", "output", "structure", "score", "to_review", "coverage", "dice", "low", "high",
    "volume_ml", "volume_low_ml", "volume_high_ml", "reason",
)  # fmt: skip

SHOWN_STRUCTURES = 5
"""Structures of a result that its lines show, those of the lowest Dice."""


def quality_lines(record: Mapping[str, Any]) -> list[str]:
    """Lines of predicted quality; none of a model that predicts none.

    Args:
        record: From `pipelines.cli.predicting.predict`.
    """
    rated = [entry for entry in record["outcomes"] if entry.get("quality")]
    if not rated:
        return []
    lines = []
    for entry in rated:
        quality = entry["quality"]
        review = ", review it" if quality["to_review"] else ""
        lines.append(f"quality: {entry['input']}: lowest Dice {quality['score']:.3f}{review}")
        ranked = sorted(quality["structures"].items(), key=lambda pair: float(pair[1]["dice"]))
        lines += [f"  {_structure(name, item)}" for name, item in ranked[:SHOWN_STRUCTURES]]
        if len(ranked) > SHOWN_STRUCTURES:
            lines.append(f"  and {len(ranked) - SHOWN_STRUCTURES} better ones, see {QUALITY_TABLE}")
    promise = record["promise"]
    return [*lines, promise if promise.startswith("no promise") else f"promise: {promise}"]


def _structure(name: str, item: Mapping[str, Any]) -> str:
    dice = f"Dice {item['dice']:.3f}{_range(item['low'], item['high'], '.3f')}"
    volume = f"{item['volume_ml']:.3g} ml"
    volume += _range(item["volume_low_ml"], item["volume_high_ml"], ".3g")
    reason = f"; {item['reason']}" if item.get("reason") else ""
    return f"{name}: {dice}, {volume}{reason}"


def _range(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else f" ({low:{form}} to {high:{form}})"


def write_quality(folder: Path, outcomes: Sequence[Mapping[str, Any]]) -> Path | None:
    """Write the table of predicted quality; an earlier one is removed where there is none.

    Args:
        folder: Folder of the results.
        outcomes: Outcomes as plain values.
    """
    path = folder / QUALITY_TABLE
    rows = [
        {**item, "structure": name, "input": entry["input"], "output": entry["output"],
         **{key: entry["quality"][key] for key in ("score", "to_review", "coverage")}}
        for entry in outcomes
        if entry.get("quality")
        for name, item in entry["quality"]["structures"].items()
    ]  # fmt: skip
    if not rows:
        path.unlink(missing_ok=True)
        return None
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return write_whole(path, text.getvalue())
