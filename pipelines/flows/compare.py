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
from pipelines.comparing.jobs import Request, TrainJob, settle_plan
from pipelines.comparing.lanes import Lanes, choose_lanes
from pipelines.comparing.resources import resources_for
from pipelines.flows.train import train_fold, train_in_lane
from pipelines.registry.registration import register_winner
from pipelines.tracking.runs import ParentLog, comparison
from segmed.comparison import Contest, Contestant
from segmed.errors import SegmedError, ServiceError
from segmed.manifest import read_manifest
from segmed.plan import read_plan


@flow(name="compare", validate_parameters=False)
def compare(request: Request) -> dict[str, Any]:
    """Compare architectures on the same held-out cases.

    Args:
        request: What to compare.

    Returns:
        What `comparison.json` holds, and the registered version.
    """
    plan_path = plan_for(request)
    manifest, plan = read_manifest(request.manifest_path), read_plan(plan_path)
    models, folds = len(request.architectures), len(request.folds)
    title = f"{models} model{'s'[: models > 1]}, {folds} fold{'s'[: folds > 1]}"
    with comparison(title, manifest, plan, folder=request.folder) as parent:
        contestants, failures = train_all(request, plan_path, parent)
        contest, record = conclude(contestants, request, failures)
        if request.register:
            record["registered"] = register(contest, request, parent)
            record["refused"] = contest.doubt
            steps.write_record(record, request)
        log_comparison(record, request, parent)
    return record


def plan_for(request: Request) -> Path:
    """The plan of all trainings: made, where there is none, for the time that each of them has."""
    lanes = choose_lanes(request.side_by_side, request.settings.device)
    each = request.jobs(Path(), lanes=len(lanes.devices))[0].budget
    return settle_plan(
        request.manifest_path,
        request.plan_path,
        request.out_dir,
        size=request.size,
        is_fresh=not request.settings.resume,
        resources=resources_for(each, request.settings.device, cores=lanes.threads),
        device=request.settings.device,
    )


def train_all(
    request: Request, plan_path: Path, parent: ParentLog
) -> tuple[list[Contestant], list[str]]:
    """Every job, in turn or side by side; one that cannot go on is noted, the others go on."""
    lanes = choose_lanes(request.side_by_side, request.settings.device)
    jobs = request.jobs(plan_path, lanes=len(lanes.devices))
    started = started_jobs(jobs, parent, lanes)
    contestants: list[Contestant] = []
    failures: list[str] = []
    errors: list[SegmedError] = []
    try:
        for job, result in zip(jobs, started, strict=True):
            name = f"{job.architecture}/fold{job.fold}"
            try:
                contestants.append(result())
            except ServiceError:
                raise  # the tracking server is away for all
            except SegmedError as error:
                errors.append(error)
                failures.append(f"{name}: {error}")
                get_run_logger().error("%s failed: %s", name, error)
    except BaseException:
        lanes.stop()
        raise
    if errors and not contestants:
        raise errors[0]
    return contestants, failures


def started_jobs(
    jobs: Sequence[TrainJob], parent: ParentLog, lanes: Lanes
) -> list[Callable[[], Contestant]]:
    """Return a call for each job that gives its result; a device pool has them running already."""
    names = [f"{job.architecture}/fold{job.fold}" for job in jobs]
    if len(lanes.devices) == 1:
        return [
            partial(train_fold.with_options(task_run_name=name), job, parent)
            for name, job in zip(names, jobs, strict=True)
        ]
    return [
        train_in_lane.with_options(task_run_name=name).submit(job, parent, lanes).result
        for name, job in zip(names, jobs, strict=True)
    ]


def lanes_wide(request: Request) -> Flow[[Request], dict[str, Any]]:
    """The flow with as many workers as the request has lanes."""
    count = len(choose_lanes(request.side_by_side, request.settings.device).devices)
    runner: Any = ThreadPoolTaskRunner(max_workers=count)  # Prefect's own types refuse its runner
    return compare.with_options(task_runner=runner, flow_run_name=run_name(request))


def run_name(request: Request) -> str:
    """Name of a comparison's run on Prefect's pages: set, models and folds."""
    models, folds = len(request.architectures), len(request.folds)
    named = "-".join(request.architectures) if models <= 3 else f"{models}-models"
    return f"{request.manifest_path.stem}-{named}-{folds}-fold{'s'[: folds > 1]}"


@task(cache_policy=NO_CACHE)
def conclude(
    contestants: list[Contestant], request: Request, failures: list[str]
) -> tuple[Contest, dict[str, Any]]:
    """Ranks, tests and the report."""
    return steps.conclude(contestants, request, failures)


@task(cache_policy=NO_CACHE)
def log_comparison(record: dict[str, Any], request: Request, parent: ParentLog) -> None:
    """The record and its sentences into the parent run, without the pages that name cases."""
    steps.log_comparison(record, parent)
    parent.artifact(request.out_dir / "comparison.json")


@task(cache_policy=NO_CACHE)
def register(contest: Contest, request: Request, parent: ParentLog) -> str:
    """The winner as a version; champion if there is none yet, else challenger.

    One that has learned nothing is a version without an alias.
    """
    assert request.register is not None
    package = package_of_winner(contest, request.out_dir)
    version = register_winner(contest, package, request.register, parent, folder=request.folder)
    return version.reference
