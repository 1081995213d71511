"""First stage of a cascade in the folder of its comparison."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pipelines.comparing.jobs import TrainJob
from pipelines.comparing.kinds import FIRST_STAGE
from pipelines.comparing.results import read_predictions
from segmed.manifest import read_manifest
from segmed.package.card import CARD_FILE
from segmed.training.settings import FirstStage


def runs_of_first_stage(out_dir: Path, architecture: str) -> Path:
    """Folder with the runs of the first stage of an architecture, one a fold."""
    return out_dir / "runs" / f"{architecture}-{FIRST_STAGE}"


def first_stage_of(job: TrainJob) -> FirstStage | None:
    """The first stage that a training refines; None for other trainings."""
    if job.kind != "cascade":
        return None
    runs = runs_of_first_stage(job.out_dir, job.architecture)
    folds = read_manifest(job.manifest_path).folds
    return FirstStage(runs / f"fold{job.fold}" / "package", label_maps_of(runs, folds))


def label_maps_of(runs: Path, folds: Sequence[int]) -> dict[str, Path]:
    """Label map of each case by the network that had not seen it, by case id.

    Args:
        runs: Runs of a model, one a fold.
        folds: Folds of the manifest; runs of others, left by an earlier split, do not count.
    """
    found: dict[str, Path] = {}
    for fold in folds:
        found |= read_predictions(runs / f"fold{fold}")
    return found


def hashes_of_first_stage(job: TrainJob) -> list[str]:
    """Hash of each fold's package of the first stage, as far as they are scored."""
    runs = runs_of_first_stage(job.out_dir, job.architecture)
    folds = [runs / f"fold{fold}" for fold in read_manifest(job.manifest_path).folds]
    cards = [run / "package" / CARD_FILE for run in folds if read_predictions(run)]
    return [json.loads(card.read_text(encoding="utf-8"))["hash"] for card in cards]
