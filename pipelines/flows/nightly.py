"""Scheduled flow: send pending tracking records of earlier runs, then segment the archive."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from pipelines.flows.segment_archive import archive_flow
from pipelines.runs.archiving import ArchiveJob
from pipelines.runs.page import name_of_run
from pipelines.tracking.late_delivery import sync


@flow(name="nightly", flow_run_name=name_of_run)
def nightly(
    job: ArchiveJob, notify: tuple[str, ...] = (), days: int | None = None
) -> dict[str, int]:
    """Deliver kept values, then segment what came in; returns studies by status.

    Args:
        job: What to segment, with what, and where to.
        notify: Notification blocks, or addresses, that receive the outcome.
        days: Ask for the studies of the last so many days only, today's included.
    """
    deliver_kept_values(job.folder)
    if days is not None:
        today = datetime.now(UTC).astimezone().date()
        job = replace(job, since=today - timedelta(days=days - 1))
    return archive_flow(job)(job, notify)


@task(cache_policy=NO_CACHE)
def deliver_kept_values(folder: Path) -> int:
    """Send what a tracking server did not take when it was away."""
    return sync(folder)[0]
