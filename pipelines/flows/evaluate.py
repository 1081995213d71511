"""Score a trained fold, a model on labelled cases, or label maps against references."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task

from pipelines.comparing import steps
from pipelines.comparing.device_pool import DevicePool
from pipelines.comparing.jobs import TrainJob
from pipelines.comparing.label_scores import LabelScoring, OnCase, score_label_maps
from pipelines.comparing.model_scores import score_model, summarise_model
from pipelines.flows.gpu_slot import held_devices
from pipelines.flows.passing import Passed
from pipelines.flows.retrying import RETRIED
from pipelines.runs.page import shown_parameter


def name_of_evaluation() -> str:
    """Name of a flow run, such as `evaluate unet fold 0`."""
    model, fold = (shown_parameter("job", name) for name in ("architecture", "fold"))
    return f"evaluate {model} fold {fold}"


@flow(name="evaluate", flow_run_name=name_of_evaluation, validate_parameters=False)
def evaluate(job: TrainJob, pool: Passed[DevicePool]) -> None:
    """Segment and score the held-out cases of a training; results are files in its folder."""
    score_fold(job, pool.value)


@task(task_run_name="score {job.model} fold {job.fold}", **RETRIED)
def score_fold(job: TrainJob, pool: DevicePool) -> None:
    """Scores of each held-out case."""
    steps.score_on(job, pool)


@flow(name="evaluate-model", flow_run_name="evaluate {model}")
def evaluate_model(manifest_path: Path, model: str, out_dir: Path, fold: int | None = None) -> Path:
    """Segment and score the test cases (or one fold's); returns the path of the summary."""
    with held_devices(("auto",)):
        scores = score_cases_of(manifest_path, model, out_dir, fold)
    return summarise_model(scores, out_dir)


@task(task_run_name="score {model}", **RETRIED)
def score_cases_of(manifest_path: Path, model: str, out_dir: Path, fold: int | None) -> Path:
    """Scores of each case as a table on disk."""
    return score_model(manifest_path, model, out_dir, fold)


@flow(
    name="evaluate-labels",
    flow_run_name="evaluate {scoring.predictions.name}",
    validate_parameters=False,
)
def evaluate_labels(scoring: LabelScoring, on_case: Passed[OnCase]) -> dict[str, Any]:
    """Score label maps against references of the same name."""
    return score_labels(scoring, on_case.value)


@task(task_run_name="score {scoring.predictions.name}", **RETRIED)
def score_labels(scoring: LabelScoring, on_case: OnCase) -> dict[str, Any]:
    """Tables, report and summary of the scores."""
    return score_label_maps(scoring, on_case)
