"""Segment an archive; the ledger, not Prefect, records completed studies."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from typing import Any

from prefect import Flow, flow, task
from prefect.cache_policies import NO_CACHE

from pipelines.flows.gpu_slot import held_devices
from pipelines.runs.archiving import ArchiveJob, run_archive
from pipelines.runs.notices import check_notices, notice_of_failure, send_notices
from pipelines.runs.page import Bar, expected_studies, name_of_run, show_run
from pipelines.runs.summary import RunSummary, summarise_run
from pipelines.tracking.runs import single_run
from segmed.errors import ServiceError, UsageError

progress = logging.getLogger("segmed.progress")
"""Reaches Prefect's log of the run, and the terminal of the user."""

EXPERIMENT = "archive"
"""MLflow experiment of the archive runs."""


@flow(name="segment-archive", flow_run_name=name_of_run)
def segment_archive(job: ArchiveJob, notify: tuple[str, ...] = ()) -> dict[str, int]:
    """Segment every study that is not done yet, and send the outcome.

    Args:
        job: What to segment, with what, and where to.
        notify: Notification blocks, or addresses, that receive the outcome.

    Returns:
        Studies by status.
    """
    with notice_of_failure(notify, "archive run"):
        check_notices(notify)
        with nullcontext() if job.cluster else held_devices(job.devices or ("auto",)):
            summary = segment(job)
        show_run(summary)
        log_run(summary, job)
        send_notices(notify, f"segmed: {summary.headline()}", "\n".join(summary.lines()))
    return dict(summary.counts)


def archive_flow(job: ArchiveJob) -> Flow[..., dict[str, int]]:
    """The flow for a job: its tasks go to the Dask cluster that the job names, if it names one."""
    if job.cluster is None:
        return segment_archive
    try:
        from prefect_dask import DaskTaskRunner  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise UsageError("a cluster needs Dask: pip install 'segmed[dask]'") from error
    return segment_archive.with_options(task_runner=DaskTaskRunner(address=job.cluster))


def is_of_the_network(task: Any, run: Any, state: Any) -> bool:
    """Return whether a failed task is worth another try: services come back, bad settings stay."""
    try:
        state.result()
    except ServiceError:
        return True
    except Exception:  # noqa: BLE001 - only asked which kind it is
        return False
    return False


@task(
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=60,
    retry_condition_fn=is_of_the_network,
)
def segment(job: ArchiveJob) -> RunSummary:
    """The run itself: safe to repeat, since each study is segmented once."""
    begun = time.monotonic()
    bar = Bar(expected_studies(job.out_dir))
    record = run_archive(job, bar.show)
    bar.end()
    return summarise_run(record, time.monotonic() - begun)


@task(cache_policy=NO_CACHE)
def log_run(summary: RunSummary, job: ArchiveJob) -> None:
    """One run of MLflow: counts and drift as metrics; never names or paths of studies."""
    tags = {
        "segmed.role": "archive",
        "segmed.drift_alarm": str(bool(summary.alarms)).lower(),
        **{f"segmed.model_hash.{n}": str(m["hash"]) for n, m in enumerate(summary.models)},
    }
    with single_run(
        EXPERIMENT, f"archive run {time.strftime('%F')}", tags, folder=job.folder
    ) as run:
        run.metrics(summary.metrics())
        drift = job.out_dir / "drift.csv"
        if summary.drift and drift.exists():
            run.artifact(drift)
