"""Bring a study's files to this machine, with patience for the network and none for bad data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segmed.archive.job import Job, Result, bad_end
from segmed.archive.pacs.delivery import Patience
from segmed.archive.study import StudySource


def fetched(job: Job, source: StudySource, spool: Path, patience: Patience) -> Job | Result:
    """The job with its files here, or how it ended instead.

    Args:
        job: A job whose study may have no files on this machine yet.
        source: Where the study comes from.
        spool: Folder for its files.
        patience: How long the network is waited for.
    """
    try:
        study = patience.insist(lambda: source.fetch(job.study, spool))
    except Exception as error:  # noqa: BLE001 - one study ends badly, the rest go on
        return bad_end(job.key, error, ())
    if study.fault is not None:
        return Result(job.key, study.fault.reason, study.fault.message, quarantine=True)
    return replace(job, study=study)
