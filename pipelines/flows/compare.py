"""Train every model on every fold, compare them, register the winner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prefect import Flow, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from pipelines.comparing import steps
from pipelines.comparing.cross_validation import package_of_winner
from pipelines.comparing.device_pool import DevicePool, make_device_pool
from pipelines.comparing.jobs import Request, TrainJob, settle_plan
from pipelines.comparing.resources import resources_for
from pipelines.flows.train import train_fold, train_in_process
from pipelines.registry.registration import register_winner
from pipelines.tracking.runs import ParentLog, comparison
from segmed.errors import SegmedError, ServiceError
from segmed.manifest import read_manifest
from segmed.plan import read_plan
from segmed.report.model_comparison import FoldResult, ModelComparison


@flow(name="compare", validate_parameters=False)
def compare(request: Request) -> dict[str, Any]:
    """Compare architectures on the same held-out cases.

    Args:
        request: What to compare.

    Returns:
        Content of `comparison.json`, and the registered version.
    """
    plan_path = plan_for(request)
    manifest, plan = read_manifest(request.manifest_path), read_plan(plan_path)
    models, folds = len(request.architectures), len(request.folds)
    title = f"{models} model{'s'[: models > 1]}, {folds} fold{'s'[: folds > 1]}"
    with comparison(title, manifest, plan, folder=request.folder) as parent:
        fold_results, failures = train_all(request, plan_path, parent)
        compared, record = conclude(fold_results, request, failures)
        if request.register:
            record["registered"] = register(compared, request, parent)
            record["refused"] = compared.doubt
            steps.write_record(record, request)
        log_comparison(record, request, parent)
    return record


def plan_for(request: Request) -> Path:
    """The plan of all trainings: made, where there is none, for the time that each of them has."""
    pool = make_device_pool(request.side_by_side, request.settings.device)
    each = request.jobs(Path(), parallel=len(pool.devices))[0].budget
    return settle_plan(
        request.manifest_path,
        request.plan_path,
        request.out_dir,
        size=request.size,
        is_fresh=not request.settings.resume,
        resources=resources_for(each, request.settings.device, cores=pool.threads),
        device=request.settings.device,
    )


def train_all(
    request: Request, plan_path: Path, parent: ParentLog
) -> tuple[list[FoldResult], list[str]]:
    """Every job, in turn or side by side; one that cannot go on is noted, the others go on."""
    pool = make_device_pool(request.side_by_side, request.settings.device)
    jobs = request.jobs(plan_path, parallel=len(pool.devices))
    started = started_jobs(jobs, parent, pool)
    fold_results: list[FoldResult] = []
    failures: list[str] = []
    errors: list[SegmedError] = []
    try:
        for job, result in zip(jobs, started, strict=True):
            name = f"{job.architecture}/fold{job.fold}"
            try:
                fold_results.append(result())
            except ServiceError:
                raise  # the tracking server is away for all
            except SegmedError as error:
                errors.append(error)
                failures.append(f"{name}: {error}")
                get_run_logger().error("%s failed: %s", name, error)
    except BaseException:
        pool.stop()
        raise
    if errors and not fold_results:
        raise errors[0]
    return fold_results, failures


def started_jobs(
    jobs: Sequence[TrainJob], parent: ParentLog, pool: DevicePool
) -> list[Callable[[], FoldResult]]:
    """Return a call for each job that gives its result; a device pool has them running already."""
    names = [f"{job.architecture}/fold{job.fold}" for job in jobs]
    if len(pool.devices) == 1:
        return [
            partial(train_fold.with_options(task_run_name=name), job, parent)
            for name, job in zip(names, jobs, strict=True)
        ]
    return [
        train_in_process.with_options(task_run_name=name).submit(job, parent, pool).result
        for name, job in zip(names, jobs, strict=True)
    ]


def with_device_pool(request: Request) -> Flow[[Request], dict[str, Any]]:
    """The flow with as many workers as its device pool has devices."""
    count = len(make_device_pool(request.side_by_side, request.settings.device).devices)
    runner: Any = ThreadPoolTaskRunner(max_workers=count)  # Prefect's own types refuse its runner
    return compare.with_options(task_runner=runner, flow_run_name=run_name(request))


def run_name(request: Request) -> str:
    """Name of a comparison's run on Prefect's pages: set, models and folds."""
    models, folds = len(request.architectures), len(request.folds)
    named = "-".join(request.architectures) if models <= 3 else f"{models}-models"
    return f"{request.manifest_path.stem}-{named}-{folds}-fold{'s'[: folds > 1]}"


@task(cache_policy=NO_CACHE)
def conclude(
    fold_results: list[FoldResult], request: Request, failures: list[str]
) -> tuple[ModelComparison, dict[str, Any]]:
    """Ranks, tests and the report."""
    return steps.conclude(fold_results, request, failures)


@task(cache_policy=NO_CACHE)
def log_comparison(record: dict[str, Any], request: Request, parent: ParentLog) -> None:
    """The record and its sentences into the parent run, without the pages that name cases."""
    steps.log_comparison(record, parent)
    parent.artifact(request.out_dir / "comparison.json")


@task(cache_policy=NO_CACHE)
def register(compared: ModelComparison, request: Request, parent: ParentLog) -> str:
    """The winner as a version; champion if there is none yet, else challenger.

    One that has learned nothing is a version without an alias.
    """
    assert request.register is not None
    package = package_of_winner(compared, request.out_dir)
    version = register_winner(compared, package, request.register, parent, folder=request.folder)
    return version.reference
