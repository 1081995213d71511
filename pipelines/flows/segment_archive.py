"""Segment an archive; the ledger, not Prefect, knows what is done."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from pipelines.archiving import ArchiveJob, run_archive
from segmed.archive import StudyOutcome

progress = logging.getLogger("segmed.progress")
"""Reaches Prefect's log of the run, and the terminal of somebody who waits for it."""


@flow(name="segment-archive")
def segment_archive(
    source: str, model: str, out_dir: str, format: str = "nifti", folder: str = "."
) -> dict[str, int]:
    """Segment every study that is not done yet.

    Args:
        source: Folder, or address of an archive.
        model: Model reference, such as `models:/hippocampus@champion`.
        out_dir: Outputs, ledger and outcomes.
        format: `nifti`, `dicom-seg` or `rtstruct`.
        folder: Working folder, for the embedded registry.

    Returns:
        Studies by status.
    """
    job = ArchiveJob(source, (model,), Path(out_dir), format=format, folder=Path(folder))
    return count(segment(job))


@task(cache_policy=NO_CACHE, retries=2, retry_delay_seconds=60)
def segment(job: ArchiveJob) -> dict[str, Any]:
    """The run itself: safe to repeat, since each study is segmented once."""

    def show(outcome: StudyOutcome) -> None:
        progress.info("study %s  %s  %s", outcome.study, outcome.status, outcome.reason)

    return run_archive(job, show)


def count(record: dict[str, Any]) -> dict[str, int]:
    """Studies by status."""
    statuses = [str(entry["status"]) for entry in record["outcomes"]]
    return {status: statuses.count(status) for status in sorted(set(statuses))}
