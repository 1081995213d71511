"""Fetch a study's files; retry while the network fails, never for invalid data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segmed.archive.job import Job, Result, failure_result
from segmed.archive.pacs.delivery import RetryPolicy
from segmed.archive.study import StudySource


def fetched(job: Job, source: StudySource, spool: Path, retry: RetryPolicy) -> Job | Result:
    """The job with its files here, or how it ended instead.

    Args:
        job: A job whose study may have no files on this machine yet.
        source: Where the study comes from.
        spool: Folder for its files.
        retry: How long the network is waited for.
    """
    try:
        study = retry.call(lambda: source.fetch(job.study, spool))
    except Exception as error:  # noqa: BLE001 - one study ends badly, the rest go on
        return failure_result(job.key, error, ())
    if study.fault is not None:
        return Result(job.key, study.fault.reason, study.fault.message, refused=True)
    return replace(job, study=study)
