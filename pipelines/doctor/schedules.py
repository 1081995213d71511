"""Prefect: whether it answers, its schedules, and the end of the last runs."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.doctor.finding import Finding
from pipelines.doctor.tracker import clear_text, clocks
from pipelines.doctor.versions import version_of

HEARTBEAT = "crashed-without-heartbeat"
"""Name of the automation in docker/heartbeat.yaml."""

LATE_MINUTES = 10
"""A run that waits longer than this has no worker."""

RUNS_LOOKED_AT = 20
FAILED_STATES = ("FAILED", "CRASHED")


def look_at_prefect(folder: Path) -> Iterator[Finding]:
    """The server that keeps schedules, if one is named."""
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        yield Finding("prefect", "embedded: a temporary server with each flow, no schedules")
        return
    if not url.startswith(("http://", "https://")):
        repair = "set PREFECT_API_URL to an address such as http://127.0.0.1:4200/api"
        yield Finding("prefect", f"{url} is not an http address", "problem", repair)
        return
    import httpx  # noqa: PLC0415 - takes seconds
    from prefect.client.orchestration import get_client  # noqa: PLC0415 - takes seconds
    from prefect.exceptions import PrefectHTTPStatusError  # noqa: PLC0415 - takes seconds
    from prefect.settings import (  # noqa: PLC0415 - takes seconds
        PREFECT_CLIENT_MAX_RETRIES,
        temporary_settings,
    )

    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(sync_client=True) as client,
        ):
            yield from _server(client, url)
            yield from _schedules(client)
            yield _heartbeat(client)
    except PrefectHTTPStatusError as error:
        status = error.response.status_code
        repair = (
            "set PREFECT_API_AUTH_STRING to the server's user:password"
            if status in {401, 403}
            else "see the server's log"
        )
        yield Finding("prefect", f"{url} answers with status {status}", "problem", repair)
    except (httpx.HTTPError, OSError, RuntimeError) as error:
        repair = "start the server, or correct PREFECT_API_URL"
        fact = f"{url} does not answer: {' '.join(str(error).split()) or type(error).__name__}"
        yield Finding("prefect", fact, "problem", repair)


def _server(client: Any, url: str) -> Iterator[Finding]:
    answer = client.hello()
    theirs, ours = client.api_version(), str(version_of("prefect"))
    if theirs != ours:
        repair = "bring server and client to one version"
        fact = f"{url} answers; server has Prefect {theirs}, client {ours}"
        yield Finding("prefect", fact, "warning", repair)
    else:
        yield Finding("prefect", f"{url} answers, version {theirs}")
    yield from clocks(f"Prefect at {url}", answer.headers.get("Date"))
    yield from clear_text("prefect", url, variable="PREFECT_API_AUTH_STRING")


def _schedules(client: Any) -> Iterator[Finding]:
    """Every scheduled deployment: is it served, when does it run next, how did it end last."""
    kept = [entry for entry in client.read_deployments() if entry.schedules]
    if not kept:
        yield Finding("schedules", "none", "warning", "start `segmed serve` and keep it running")
    for entry in kept:
        yield _schedule(client, entry)


def _schedule(client: Any, entry: Any) -> Finding:
    what = f"schedule {entry.name}"
    if entry.paused or not any(schedule.active for schedule in entry.schedules):
        return Finding(what, "paused", "warning", f"`prefect deployment resume` {entry.name}")
    runs = _runs(client, entry.id)
    now = dt.datetime.now(dt.UTC)
    waiting = [run for run in runs if run.state is not None and run.state.is_scheduled()]
    late = [run for run in waiting if _is_late(run, now)]
    coming = sorted(_due(run) for run in waiting if _due(run) > now)
    ended = [run for run in runs if run.end_time is not None]
    last = max(ended, key=lambda run: run.end_time, default=None)
    fact = f"next {coming[0]:%Y-%m-%d %H:%M} UTC" if coming else "no run to come"
    if last is not None:
        fact += f", last {last.state_name} at {last.end_time:%Y-%m-%d %H:%M}"
    if not coming:
        repair = "restart the server; is SQLAlchemy below 2.1 there?"
        return Finding(what, fact, "problem", repair)
    if late:
        repair = "start `segmed serve` if it is not running; else cancel a run that hangs"
        return Finding(what, f"{fact}, {len(late)} late", "problem", repair)
    if str(entry.status).endswith("NOT_READY"):
        repair = "start `segmed serve` and keep it running"
        return Finding(what, f"{fact}, but no process serves it", "warning", repair)
    if last is not None and last.state_type is not None and last.state_type.value in FAILED_STATES:
        return Finding(what, fact, "warning", f"see `prefect flow-run logs {last.id}`")
    return Finding(what, fact)


def _runs(client: Any, deployment: Any) -> list[Any]:
    from prefect.client.schemas.filters import (  # noqa: PLC0415 - takes seconds
        FlowRunFilter,
        FlowRunFilterDeploymentId,
    )
    from prefect.client.schemas.sorting import FlowRunSort  # noqa: PLC0415 - takes seconds

    mine = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))
    found = [
        client.read_flow_runs(flow_run_filter=mine, sort=order, limit=RUNS_LOOKED_AT)
        for order in (FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC, FlowRunSort.END_TIME_DESC)
    ]
    return list({run.id: run for runs in found for run in runs}.values())


def _due(run: Any) -> dt.datetime:
    due: dt.datetime = run.next_scheduled_start_time or run.expected_start_time
    return due


def _is_late(run: Any, now: dt.datetime) -> bool:
    return now - _due(run) > dt.timedelta(minutes=LATE_MINUTES)


def _heartbeat(client: Any) -> Finding:
    """Return whether runs of a machine that died are given up."""
    if client.read_automations_by_name(HEARTBEAT):
        return Finding("heartbeat", "a run whose machine dies is given up")
    repair = "prefect automation create --from-file docker/heartbeat.yaml"
    fact = "a run whose machine dies would keep its slot for ever"
    return Finding("heartbeat", fact, "warning", repair)
