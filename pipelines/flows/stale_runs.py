"""Runs that were planned with other settings than today's: the schedule's next ones replace them.

Prefect notes a run's parameters when it plans the run, hours ahead. After a change of settings, or
when a server was restored from a backup, runs would still go to folders that are no longer meant.
A run that a user requested keeps its parameters, whatever they are, and is never deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound

logger = logging.getLogger(__name__)

RUNS_AT_ONCE = 100


def forget_stale_runs(settings: Mapping[str, Mapping[str, Any]]) -> int:
    """Delete the runs that a schedule planned with other parameters and that have not begun.

    Runs on demand stay, as do runs that wait for a retry.

    Args:
        settings: Parameters of each deployment, by `flow/deployment`.

    Returns:
        How many were deleted.
    """
    deleted = 0
    with get_client(sync_client=True) as client:
        for name, parameters in settings.items():
            try:
                deployment = client.read_deployment_by_name(name)
            except ObjectNotFound:
                continue
            stale = [
                run
                for run in _waiting(client, deployment.id)
                if run.auto_scheduled and not run.run_count and run.parameters != parameters
            ]
            for run in stale:
                client.delete_flow_run(run.id)
            deleted += len(stale)
    if deleted:
        logger.info("%d planned runs with other settings were forgotten", deleted)
    return deleted


def settings_of(deployments: Iterable[Any]) -> dict[str, Mapping[str, Any]]:
    """Parameters of deployments that are about to be served, by `flow/deployment`."""
    return {f"{entry.flow_name}/{entry.name}": entry.parameters for entry in deployments}


def _waiting(client: SyncPrefectClient, deployment: UUID) -> Iterator[FlowRun]:
    wanted = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
    )
    offset = 0
    while True:
        runs = client.read_flow_runs(flow_run_filter=wanted, limit=RUNS_AT_ONCE, offset=offset)
        yield from runs
        if len(runs) < RUNS_AT_ONCE:
            return
        offset += RUNS_AT_ONCE
