"""The schedules that `segmed serve` keeps, in one process or by the workers of a work pool."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from prefect import Flow, serve
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.types.entrypoint import EntrypointType
from pydantic import TypeAdapter

from pipelines.flows.compare import compare
from pipelines.flows.evaluate import evaluate_model
from pipelines.flows.monthly import monthly
from pipelines.flows.nightly import nightly
from pipelines.flows.on_demand import on_demand
from pipelines.flows.preprocess import preprocess
from pipelines.flows.stale_runs import forget_stale_runs, settings_of
from pipelines.flows.train import train
from pipelines.flows.watch import watch
from pipelines.flows.weekly import WeeklyJob, weekly
from pipelines.registry.monthly import MonthlyJob
from pipelines.runs.archiving import ArchiveJob
from pipelines.runs.automations import HEARTBEAT_S, HEARTBEAT_VARIABLE, TAG, install
from pipelines.runs.notices import MailBlock, check_notices
from segmed.errors import UsageError

POOL_KIND = "process"

BY_HAND: dict[str, Flow[..., Any]] = {
    "preprocess": preprocess,
    "train": train,
    "evaluate": evaluate_model,
    "compare": compare,
    "watch": watch,
}
"""Flows without a schedule, by name of their deployment; each run is given all its parameters."""


@dataclass(frozen=True)
class Schedules:
    """Schedule of each flow.

    Attributes:
        archive: What is segmented every night, and on demand.
        weekly: What is compared every week, if anything.
        monthly: What is judged every month, if anything.
        nightly_cron: When the archive runs.
        weekly_cron: When the comparison runs.
        monthly_cron: When the archive's reviews are judged.
        days: Every night, query a PACS for the studies of so many days only.
        notify: Notification blocks, or addresses, that receive the outcomes.
        work_pool: Work pool whose workers run it all; None serves in this process.
    """

    archive: ArchiveJob
    weekly: WeeklyJob | None = None
    monthly: MonthlyJob | None = None
    nightly_cron: str = "0 2 * * *"
    weekly_cron: str = "0 4 * * 0"
    monthly_cron: str = "0 6 1 * *"
    days: int | None = None
    notify: tuple[str, ...] = ()
    work_pool: str | None = None


def deployments(schedules: Schedules) -> list[Any]:
    """One deployment a schedule, one for the archive on demand, one for each other flow."""
    job = TypeAdapter(ArchiveJob).dump_python(schedules.archive, mode="json")
    notify = list(schedules.notify)
    archive = {"job": job, "notify": notify}
    found = [
        nightly.to_deployment(
            name="nightly",
            cron=schedules.nightly_cron,
            parameters={**archive, "days": schedules.days},
            **_manner(schedules),
        ),
        on_demand.to_deployment(name="on-demand", parameters=archive, **_manner(schedules)),
    ]
    if schedules.weekly is not None:
        comparison = TypeAdapter(WeeklyJob).dump_python(schedules.weekly, mode="json")
        found.append(
            weekly.to_deployment(
                name="weekly",
                cron=schedules.weekly_cron,
                parameters={"job": comparison, "notify": notify},
                **_manner(schedules),
            )
        )
    if schedules.monthly is not None:
        month = TypeAdapter(MonthlyJob).dump_python(schedules.monthly, mode="json")
        found.append(
            monthly.to_deployment(
                name="monthly",
                cron=schedules.monthly_cron,
                parameters={"job": month, "notify": notify},
                **_manner(schedules),
            )
        )
    return found + [
        asked.to_deployment(name=name, **_manner(schedules)) for name, asked in BY_HAND.items()
    ]


def _manner(schedules: Schedules) -> dict[str, Any]:
    manner: dict[str, Any] = {"concurrency_limit": 1, "tags": [TAG]}
    if schedules.work_pool is not None:
        manner |= {
            "work_pool_name": schedules.work_pool,
            "job_variables": {"env": {HEARTBEAT_VARIABLE: str(HEARTBEAT_S)}},
            "entrypoint_type": EntrypointType.MODULE_PATH,
        }
    return manner


def serve_schedules(schedules: Schedules) -> list[str]:
    """Serve until stopped, or deploy to a work pool; its automations are made in either case.

    Returns:
        The deployments of a work pool.

    Raises:
        UsageError: No Prefect server is named: a temporary one would forget its schedules; or a
            notice cannot be sent.
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise UsageError(
            "schedules need a Prefect server that stays: start `prefect server start` and set "
            "PREFECT_API_URL, such as http://127.0.0.1:4200/api"
        )
    MailBlock.register_type_and_schema()
    check_notices(schedules.notify)
    install(schedules.notify)
    found = deployments(schedules)
    if schedules.work_pool is None:
        os.environ.setdefault(HEARTBEAT_VARIABLE, str(HEARTBEAT_S))
    else:
        make_pool(schedules.work_pool)
    for deployment in found:
        deployment.apply()  # from here on the server plans with these settings
    forget_stale_runs(settings_of(entry for entry in found if entry.parameters))
    if schedules.work_pool is None:
        serve(*found)
        return []
    return [f"{deployment.flow_name}/{deployment.name}" for deployment in found]


def make_pool(name: str) -> None:
    """Make a process work pool unless the server has one of that name."""
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(name)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=name, type=POOL_KIND))
