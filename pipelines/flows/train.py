"""Train and score one model on one fold."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from pipelines.comparing import steps
from pipelines.comparing.device_pool import DevicePool
from pipelines.comparing.jobs import TrainJob, check_job
from pipelines.flows.gpu_slot import device_slot
from pipelines.tracking.runs import ParentLog, comparison
from segmed.manifest import read_manifest
from segmed.plan import read_plan
from segmed.report.model_comparison import FoldResult


@task(cache_policy=NO_CACHE)
def train_fold(job: TrainJob, parent: ParentLog) -> FoldResult:
    """One child run: training, held-out scores, package."""
    params = steps.job_params(job, read_plan(job.plan_path))
    with parent.child(job.architecture, job.fold, params=params) as log:
        return steps.train_and_score(job, log)


@task(cache_policy=NO_CACHE)
def train_in_process(job: TrainJob, parent: ParentLog, pool: DevicePool) -> FoldResult:
    """`train_fold` in a process of its own, so that several run side by side."""
    params = steps.job_params(job, read_plan(job.plan_path))
    with parent.child(job.architecture, job.fold, params=params) as log:
        return steps.train_apart(job, log, pool, device_slot)


@flow(name="train", validate_parameters=False)
def train(job: TrainJob, folder: Path = Path()) -> FoldResult:
    """Train one architecture on one fold and score its held-out cases."""
    check_job(job)
    manifest, plan = read_manifest(job.manifest_path), read_plan(job.plan_path)
    name = f"{job.architecture} fold {job.fold}"
    with comparison(name, manifest, plan, folder=folder) as parent:
        return train_fold(job, parent)
