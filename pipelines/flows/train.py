"""Train one model on one fold, and score its held-out cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from pipelines.comparing import steps
from pipelines.comparing.device_pool import DevicePool, make_device_pool
from pipelines.comparing.jobs import TrainJob, check_job
from pipelines.comparing.preparing import preparation_of
from pipelines.flows.evaluate import evaluate
from pipelines.flows.gpu_slot import held_devices
from pipelines.flows.passing import Passed
from pipelines.flows.preprocess import preprocess
from pipelines.runs.page import shown_parameter
from pipelines.tracking.runs import ParentLog, RunLog, comparison
from segmed.manifest import read_manifest
from segmed.plan import read_plan
from segmed.report.model_comparison import FoldResult


def name_of_training() -> str:
    """Name of a flow run, such as `train unet fold 0`."""
    return f"train {shown_parameter('job', 'architecture')} fold {shown_parameter('job', 'fold')}"


@flow(name="train", flow_run_name=name_of_training)
def train(job: TrainJob, folder: Path = Path()) -> FoldResult:
    """Prepare the cases, train one architecture on one fold, score its held-out cases.

    Args:
        job: What to train.
        folder: Working folder, for the embedded tracking database.
    """
    check_job(job)
    prepare_for([job])
    manifest, plan = read_manifest(job.manifest_path), read_plan(job.plan_path)
    pool = make_device_pool(1, job.settings.device)
    with (
        comparison(f"{job.model} fold {job.fold}", manifest, plan, folder=folder) as parent,
        held_devices(pool.devices),
    ):
        return train_and_evaluate(job, parent, pool)


@flow(name="train", flow_run_name=name_of_training, validate_parameters=False)
def train_fold(job: TrainJob, parent: Passed[ParentLog], pool: Passed[DevicePool]) -> FoldResult:
    """The same for one of the trainings of a comparison, whose cases are prepared."""
    return train_and_evaluate(job, parent.value, pool.value)


def prepare_for(jobs: Sequence[TrainJob]) -> None:
    """Prepare the cases of trainings, those of each plan, unless all of them are kept."""
    by_plan: dict[Path, list[TrainJob]] = {}
    for job in jobs:
        if job.kind == "cascade":  # prepared once its first stage has segmented the cases
            continue
        by_plan.setdefault(job.plan_path, []).append(job)
    for some in by_plan.values():
        preparation = preparation_of(some)
        if preparation is not None:
            preprocess(preparation)


def train_and_evaluate(job: TrainJob, parent: ParentLog, pool: DevicePool) -> FoldResult:
    """One child run of MLflow: training, held-out scores, package."""
    params = steps.job_params(job, read_plan(job.plan_path))
    with parent.child(job.model, job.fold, params=params) as log:
        with pool.placed(job) as placed:
            fit(placed, pool, log)
            evaluate(placed, Passed(pool))
        return steps.log_fold_result(job, log)


@task(name="fit", cache_policy=NO_CACHE, task_run_name="fit {job.model} fold {job.fold}")
def fit(job: TrainJob, pool: DevicePool, log: RunLog) -> None:
    """The training; never retried: it is neither short nor the same a second time."""
    steps.train_on(job, pool, log)
