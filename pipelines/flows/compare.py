"""Train every model on every fold, compare them, register the winner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from pydantic import TypeAdapter

from pipelines.comparing import steps
from pipelines.comparing.device_pool import DevicePool, make_device_pool
from pipelines.comparing.jobs import CACHE, Request, TrainJob
from pipelines.comparing.kinds import planned_stages
from pipelines.comparing.planning import stages_for
from pipelines.comparing.resources import memory_for, resources_for, size_for
from pipelines.comparing.rivals import rivals_of
from pipelines.comparing.settled_plan import settle_plan
from pipelines.comparing.training_job import is_first_stage_done, is_kept
from pipelines.flows.gpu_slot import held_devices
from pipelines.flows.passing import Passed
from pipelines.flows.register import register
from pipelines.flows.train import prepare_for, train_fold
from pipelines.tracking.runs import ParentLog, comparison
from segmed.errors import SegmedError, ServiceError
from segmed.manifest import read_manifest
from segmed.plan import read_plan
from segmed.report.model_comparison import FoldResult, ModelComparison


def name_of_comparison() -> str:
    """Name of a flow run: set, models and folds."""
    return run_name(TypeAdapter(Request).validate_python(flow_run.parameters["request"]))


@flow(name="compare", flow_run_name=name_of_comparison)
def compare(request: Request) -> dict[str, Any]:
    """Compare architectures on the same held-out cases.

    Args:
        request: What to compare.

    Returns:
        Content of `comparison.json`, and the registered version.
    """
    rivals_of(request, read_manifest(request.manifest_path))  # misfits show before any training
    request = with_stages(request)
    plan_path = plan_for(request)
    pool = make_device_pool(request.side_by_side, request.settings.device)
    jobs = request.jobs(plan_path, parallel=len(pool.devices))
    prepare_for(jobs)
    manifest, plan = read_manifest(request.manifest_path), read_plan(jobs[0].plan_path)
    models, folds = request.num_models, len(request.folds)
    title = f"{models} model{'s'[: models > 1]}, {folds} fold{'s'[: folds > 1]}"
    with comparison(title, manifest, plan, folder=request.folder) as parent:
        fold_results, failures = train_stages(jobs, pool, parent)
        compared, record = conclude(fold_results, request, failures)
        if request.register:
            record["registered"] = register(
                request, Passed(record), Passed(compared), Passed(parent)
            )
            record["refused"] = compared.doubt
            steps.write_record(record, request)
        log_comparison(record, request, parent)
    return record


def plan_for(request: Request) -> Path:
    """The plan of all trainings: made, where there is none, for the time that each of them has.

    Where kinds are compared there is a plan for each beside the place that is returned.
    """
    pool = make_device_pool(request.side_by_side, request.settings.device)
    each = request.jobs(Path(), parallel=len(pool.devices))[0].budget
    places = [
        settle_plan(
            request.manifest_path,
            request.plan_path,
            request.out_dir,
            size=request.size,
            is_fresh=not request.settings.resume,
            resources=resources_for(each, request.settings.device, cores=pool.threads),
            device=request.settings.device,
            kind=kind,
        )
        for kind in request.kinds
    ]
    return places[0] if request.kinds == (None,) else request.out_dir / "plan.yaml"


def with_stages(request: Request) -> Request:
    """The request with the stages that its set asks for, where a cascade is compared.

    Raises:
        UsageError: The set has no use for a cascade.
    """
    if not request.has_cascade or planned_stages(request.out_dir / "plan.yaml"):
        return request
    pool = make_device_pool(request.side_by_side, request.settings.device)
    each = request.jobs(Path(), parallel=len(pool.devices))[0].budget
    kinds = stages_for(
        read_manifest(request.manifest_path),
        request.out_dir / CACHE,
        size=size_for(request.size, request.settings.device),
        memory_gb=memory_for(request.settings.device),
        resources=resources_for(each, request.settings.device, cores=pool.threads),
    )
    return replace(request, kinds=kinds)


def train_stages(
    jobs: Sequence[TrainJob], pool: DevicePool, parent: ParentLog
) -> tuple[list[FoldResult], list[str]]:
    """Every job; those that refine a first stage once it has come to its end on all folds."""
    refining = [job for job in jobs if job.kind == "cascade"]
    results, failures = train_all([job for job in jobs if job not in refining], pool, parent)
    if not refining:
        return results, failures
    ready = [job for job in refining if is_first_stage_done(job, jobs)]
    failures += [
        f"{job.model}/fold{job.fold}: its first stage was not trained on all folds"
        for job in refining
        if job not in ready
    ]
    refined, failed = train_all(ready, pool, parent) if ready else ([], [])
    return [*results, *refined], [*failures, *failed]


def train_all(
    jobs: Sequence[TrainJob], pool: DevicePool, parent: ParentLog
) -> tuple[list[FoldResult], list[str]]:
    """Every job, in turn or side by side; the others continue after one that fails."""
    place = nullcontext() if all(map(is_kept, jobs)) else held_devices(pool.devices)
    with place, started_jobs(jobs, parent, pool) as started:
        return results_of(jobs, started)


def results_of(
    jobs: Sequence[TrainJob], started: Sequence[Callable[[], FoldResult]]
) -> tuple[list[FoldResult], list[str]]:
    """Results of the jobs that came to their end, and a line for each that did not."""
    fold_results: list[FoldResult] = []
    failures: list[str] = []
    errors: list[SegmedError] = []
    for job, result in zip(jobs, started, strict=True):
        name = f"{job.model}/fold{job.fold}"
        try:
            fold_results.append(result())
        except ServiceError:
            raise  # the tracking server is away for all
        except SegmedError as error:
            errors.append(error)
            failures.append(f"{name}: {error}")
            get_run_logger().error("%s failed: %s", name, error)
    if errors and not fold_results:
        raise errors[0]
    return fold_results, failures


@contextmanager
def started_jobs(
    jobs: Sequence[TrainJob], parent: ParentLog, pool: DevicePool
) -> Iterator[list[Callable[[], FoldResult]]]:
    """A call for each job that gives its result; a device pool has them running already.

    If the block raises, those that run save and end, and those that wait never begin.
    """
    calls = [partial(train_fold, job, Passed(parent), Passed(pool)) for job in jobs]
    if pool.is_single:
        yield list(calls)
        return
    threads = ThreadPoolExecutor(len(pool.devices))  # each waits for a process
    try:
        yield [threads.submit(copy_context().run, call).result for call in calls]
    except BaseException:  # also where the run is cancelled
        pool.stop()
        threads.shutdown(cancel_futures=True)
        raise
    threads.shutdown()


def run_name(request: Request) -> str:
    """Name of a comparison's run on Prefect's pages: set, models and folds."""
    models, folds = request.num_models, len(request.folds)
    names = request.architectures
    named = "-".join(names) if len(names) == models <= 3 else f"{models}-models"
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
