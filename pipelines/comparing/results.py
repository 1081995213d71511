"""Results of a finished training, read from its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segmed.metrics import read_table
from segmed.report.model_comparison import FoldResult

RESULT_FILE = "fold_result.json"
OLD_RESULT_FILE = "contestant.json"
"""Name of the result in runs of earlier versions; read, never written."""


def result_path(run_dir: Path) -> Path:
    """File of a run's result, by whatever version it was written."""
    old = run_dir / OLD_RESULT_FILE
    return old if old.exists() else run_dir / RESULT_FILE


def read_history(run_dir: Path) -> list[dict[str, Any]]:
    """Read the training history: one record for each epoch."""
    lines = (run_dir / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def read_predictions(run_dir: Path) -> dict[str, Path]:
    """Label map of each held-out case, by case id; none where the run is not finished."""
    path = result_path(run_dir)
    if not path.exists():
        return {}
    names = json.loads(path.read_text(encoding="utf-8"))["predictions"]
    return {case: run_dir / "predictions" / name for case, name in names.items()}


def read_fold_result(run_dir: Path) -> FoldResult:
    """Read the result that a finished job left."""
    record = json.loads(result_path(run_dir).read_text(encoding="utf-8"))
    del record["predictions"], record["identity"]
    return FoldResult(
        **record,
        table=read_table(run_dir / "scores.parquet"),
        history=read_history(run_dir),
        package_dir=run_dir / "package",
        predictions=read_predictions(run_dir),
    )
