"""First stage of a cascade in the folder of its comparison."""

from __future__ import annotations

import json
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
    return FirstStage(runs / f"fold{job.fold}" / "package", label_maps_of(runs))


def label_maps_of(runs: Path) -> dict[str, Path]:
    """Label map of each case by the network that had not seen it, by case id.

    Args:
        runs: Runs of a model, one a fold.
    """
    found: dict[str, Path] = {}
    for run in sorted(runs.glob("fold*")):
        found |= read_predictions(run)
    return found


def is_first_stage_done(job: TrainJob) -> bool:
    """Return whether the first stage of a cascade is trained and scored on all folds."""
    folds = read_manifest(job.manifest_path).folds
    return len(hashes_of_first_stage(job)) == len(folds)


def hashes_of_first_stage(job: TrainJob) -> list[str]:
    """Hash of each fold's package of the first stage, as far as they are scored."""
    runs = runs_of_first_stage(job.out_dir, job.architecture)
    cards = [
        run / "package" / CARD_FILE for run in sorted(runs.glob("fold*")) if read_predictions(run)
    ]
    return [json.loads(card.read_text(encoding="utf-8"))["hash"] for card in cards]
