"""One training as a job: trained, its held-out cases scored; all results are files.

They are in the job's folder (`OUT/runs/<architecture>/fold<k>`), and a job whose scores are there
need not be done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from pipelines.comparing.first_stage import first_stage_of, hashes_of_first_stage
from pipelines.comparing.jobs import TrainJob
from pipelines.comparing.kinds import FIRST_STAGE
from pipelines.comparing.progress import TrainingProgress
from pipelines.comparing.results import (
    OLD_RESULT_FILE,
    RESULT_FILE,
    read_history,
    result_path,
)
from pipelines.tracking.held_out import held_out_scores, keep_scores
from segmed.evaluation import Evaluated, score_cases
from segmed.inference import Predictor
from segmed.inference.engine import resolve_device
from segmed.inference.vocabulary import EngineName
from segmed.io.atomic import write_whole
from segmed.manifest import data_hash, read_manifest
from segmed.metrics import write_table
from segmed.package import ModelPackage
from segmed.package.predicted_quality import with_quality
from segmed.plan import plan_hash, read_plan
from segmed.quality.cases import QUALITY_CASES_FILE, write_quality_cases
from segmed.quality.risk import DEFAULT_TARGET
from segmed.report.legends import legend_of_set
from segmed.training import EpochResult, fit
from segmed.training.checkpoint import LAST
from segmed.training.weights import weights_digest

OnEpoch = Callable[[EpochResult], None]


def is_done(job: TrainJob) -> bool:
    """Return whether the run folder has the scores of exactly this job."""
    path = result_path(job.run_dir)
    if not path.exists():
        return False
    record = json.loads(path.read_text(encoding="utf-8"))
    return bool(record.get("identity") == _identity(job))


def is_first_stage_done(job: TrainJob, jobs: Sequence[TrainJob]) -> bool:
    """Return whether the first stage of a cascade is trained and scored, by exactly these jobs.

    Args:
        job: Training of the second stage.
        jobs: All trainings of the comparison.
    """
    first = [one for one in jobs if (one.architecture, one.kind) == (job.architecture, FIRST_STAGE)]
    return bool(first) and all(map(is_done, first))


def is_kept(job: TrainJob) -> bool:
    """Return whether a job continues with the results of an earlier call."""
    return job.settings.resume and is_done(job)


def _identity(job: TrainJob) -> dict[str, Any]:
    """Return the inputs on which the scores of a job depend, beside the code."""
    manifest = read_manifest(job.manifest_path)
    return {
        "plan_hash": plan_hash(read_plan(job.plan_path)),
        "data_hash": data_hash(manifest, manifest.training),
        "budget": asdict(job.budget),
        "seed": job.settings.seed,
        **unusual_settings(job),
        **({"first_stage": hashes_of_first_stage(job)} if job.kind == "cascade" else {}),
    }


def unusual_settings(job: TrainJob) -> dict[str, Any]:
    """Settings of a training that differ from the defaults and change its result."""
    settings = job.settings
    found = {
        "weights": weights_digest(settings.weights) if settings.weights else None,
        "patience": settings.patience,
        "deterministic": settings.deterministic,
        "promise": None if job.promise == DEFAULT_TARGET else job.promise.sentence,
    }
    return {key: value for key, value in found.items() if value}


def train_network(job: TrainJob, on_epoch: OnEpoch) -> None:
    """Train the network of a job; checkpoints, history and package are files in its folder.

    Args:
        job: The training.
        on_epoch: Called with each epoch's result, for tracking; progress is logged here.
    """
    for name in (RESULT_FILE, OLD_RESULT_FILE):
        (job.run_dir / name).unlink(missing_ok=True)
    is_resumed = job.settings.resume and (job.run_dir / LAST).exists()
    shown = TrainingProgress(job, is_resumed=is_resumed)
    with _reported(shown):
        for result in epochs_of(job, shown.prepared):
            shown.epoch(result)
            on_epoch(result)


def score_held_out(job: TrainJob) -> None:
    """Segment and score the held-out cases of a trained job; may be repeated."""
    shown = TrainingProgress(job)
    with _reported(shown):
        table = _score(job, shown).table
    shown.scored(float(table["dice"].mean()), int(table["case"].nunique()))


@contextmanager
def _reported(shown: TrainingProgress) -> Iterator[None]:
    """Report an end without scores if the block raises."""
    try:
        yield
    except BaseException:  # also where a user or a signal ended it
        shown.failed()
        raise


def epochs_of(
    job: TrainJob, on_prepared: Callable[[int, int], None] | None = None
) -> Iterator[EpochResult]:
    """Train a job, without scoring it.

    Args:
        job: The training.
        on_prepared: Called with cases prepared and cases in all.

    Yields:
        One result an epoch.
    """
    return fit(
        read_manifest(job.manifest_path),
        read_plan(job.plan_path),
        architecture=job.architecture,
        fold=job.fold,
        budget=job.budget,
        out_dir=job.run_dir,
        settings=replace(job.fit_settings, first_stage=first_stage_of(job)),
        on_prepared=on_prepared,
    )


def _score(job: TrainJob, shown: TrainingProgress) -> Evaluated:
    manifest = read_manifest(job.manifest_path)
    cases = manifest.split(job.fold)[1]
    package = ModelPackage.load(job.run_dir / "package")
    device = resolve_device(job.settings.device)
    # A conversion takes longer than it spares here, and most trained networks run nowhere else.
    engine: EngineName = "torch" if device.type == "cpu" else "auto"
    evaluated = score_cases(
        Predictor(package, device=str(device), engine=engine),
        manifest,
        cases,
        out_dir=job.run_dir / "predictions",
        progress=shown.scoring(len(cases)),
        with_features=True,
    )
    write_table(evaluated.table, job.run_dir / "scores.parquet")
    write_quality_cases(job.run_dir / QUALITY_CASES_FILE, evaluated.quality_cases)
    unit = legend_of_set(manifest).unit
    scored = keep_scores(
        job.run_dir / "package", held_out_scores(evaluated.table, [job.fold], unit=unit)
    )
    known = evaluated.quality_cases
    predicting = with_quality(scored, known, basis="held_out", target=job.promise)
    predicting.save(job.run_dir / "package")
    history = read_history(job.run_dir)
    record = {
        "architecture": job.model,
        "fold": job.fold,
        "parameters": _num_parameters(package),
        "train_seconds": history[-1]["seconds"] if history else 0.0,
        "seconds_per_case": evaluated.seconds_per_case,
        "peak_memory_mb": max((entry["peak_memory_mb"] for entry in history), default=0.0),
        "predictions": {case: path.name for case, path in evaluated.predictions.items()},
        "identity": _identity(job),
    }
    write_whole(job.run_dir / RESULT_FILE, json.dumps(record, indent=2))
    return evaluated


def _num_parameters(package: ModelPackage) -> int:
    """Trained numbers of a package, those of both stages of a cascade."""
    tensors = package.state.values() if package.plans else package.build().parameters()
    return sum(tensor.numel() for tensor in tensors)
