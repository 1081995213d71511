"""Score a model on the labelled cases of a manifest."""

from __future__ import annotations

import json
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from pipelines.registry.cache import converted_folder
from pipelines.registry.loading import load_models
from segmed.evaluation import score_cases
from segmed.inference import Predictor
from segmed.io.atomic import write_whole
from segmed.manifest import read_manifest
from segmed.metrics import read_table, summarise, write_table


@flow(name="evaluate")
def evaluate(manifest_path: Path, model: str, out_dir: Path, fold: int | None = None) -> Path:
    """Segment and score the test cases (or one fold's); returns the path of the summary."""
    scores = score(manifest_path, model, out_dir, fold)
    return summarise_scores(scores, out_dir)


@task(cache_policy=NO_CACHE)
def score(manifest_path: Path, model: str, out_dir: Path, fold: int | None) -> Path:
    """Scores of each case, as a table on disk, and which model made them, in `model.json`."""
    manifest = read_manifest(manifest_path)
    cases = manifest.test if fold is None else manifest.split(fold)[1]
    resolved, packages = load_models([model])
    out_dir.mkdir(parents=True, exist_ok=True)
    write_whole(out_dir / "model.json", json.dumps(resolved[0].record(), indent=2))
    predictor = Predictor(packages, cache_dir=converted_folder())
    evaluated = score_cases(predictor, manifest, cases, out_dir=out_dir / "predictions")
    return write_table(evaluated.table, out_dir / "scores.parquet")


@task(cache_policy=NO_CACHE)
def summarise_scores(scores: Path, out_dir: Path) -> Path:
    """Means, intervals and counts of each label and metric."""
    return write_table(summarise(read_table(scores)), out_dir / "summary.csv")
