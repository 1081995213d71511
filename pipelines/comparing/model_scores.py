"""Scores of a model on the labelled cases of a manifest."""

from __future__ import annotations

import json
from pathlib import Path

from pipelines.registry.cache import converted_folder
from pipelines.registry.loading import load_models
from segmed.evaluation import score_cases
from segmed.inference import Predictor
from segmed.io.atomic import write_whole
from segmed.manifest import read_manifest
from segmed.metrics import read_table, summarise, write_table


def score_model(manifest_path: Path, model: str, out_dir: Path, fold: int | None) -> Path:
    """Segment and score the test cases, or those of a fold.

    Args:
        manifest_path: The manifest.
        model: Model reference.
        out_dir: Folder of label maps, scores, and `model.json`, the model that made them.
        fold: Fold to score; the test cases if not given.

    Returns:
        The table of scores.
    """
    manifest = read_manifest(manifest_path)
    cases = manifest.test if fold is None else manifest.split(fold)[1]
    resolved, packages = load_models([model])
    out_dir.mkdir(parents=True, exist_ok=True)
    write_whole(out_dir / "model.json", json.dumps(resolved[0].record(), indent=2))
    predictor = Predictor(packages, cache_dir=converted_folder())
    evaluated = score_cases(predictor, manifest, cases, out_dir=out_dir / "predictions")
    return write_table(evaluated.table, out_dir / "scores.parquet")


def summarise_model(scores: Path, out_dir: Path) -> Path:
    """Write means, intervals and counts of each label and metric; returns the path."""
    return write_table(summarise(read_table(scores)), out_dir / "summary.csv")
