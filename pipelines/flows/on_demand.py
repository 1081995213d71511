"""Segment the archive on request, with options for this one run."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from prefect import flow

from pipelines.flows.segment_archive import archive_flow
from pipelines.runs.archiving import ArchiveJob
from pipelines.runs.page import name_of_run
from segmed.archive import retry_archive


@flow(name="on-demand", flow_run_name=name_of_run)
def on_demand(
    job: ArchiveJob,
    notify: tuple[str, ...] = (),
    limit: int | None = None,
    since: date | None = None,
    resegment: bool = False,
    retry: bool = False,
) -> dict[str, int]:
    """Segment an archive now; returns studies by status.

    Args:
        job: Archive, model and output of the run, as set in the deployment.
        notify: Notification blocks, or addresses, that receive the outcome.
        limit: Stop after this many studies.
        since: Only studies of this day or later.
        resegment: Also what another model has done.
        retry: Give refused and failed studies another chance first.
    """
    if retry:
        retry_archive(job.out_dir)
    job = replace(
        job,
        limit=job.limit if limit is None else limit,
        since=job.since if since is None else since,
        resegment=job.resegment or resegment,
    )
    return archive_flow(job)(job, notify)
