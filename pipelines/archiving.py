"""One archive run, as the command line and the flows ask for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from pipelines.loading import resolve_model
from pipelines.logs import log_outcome
from pipelines.model_reference import Resolved
from segmed.archive import (
    Choices,
    FolderSource,
    StudyOutcome,
    StudySource,
    Workers,
    model_of,
    preview_archive,
    read_packages,
    read_rules,
    segment_archive,
)
from segmed.archive.address import delivery_at, source_at
from segmed.archive.remote import Query
from segmed.errors import UsageError
from segmed.inference import Predictor
from segmed.package import ModelPackage


@dataclass(frozen=True)
class ArchiveJob:
    """What to segment, with what, and where to.

    Attributes:
        source: A folder, or the address of an archive.
        models: Model references; several are an ensemble.
        out_dir: Outputs, ledger and outcomes.
        format: `nifti`, `dicom-seg` or `rtstruct`.
        workers: Worker processes; 0 segments in this process.
        rules: YAML that says which series is which channel.
        limit: Stop after this many studies.
        resegment: Also segment what another model has done.
        since: Only studies of this day or later (of a folder: files changed since).
        until: Only studies of this day or earlier; of a PACS.
        modalities: Only series of these modalities; of a PACS.
        send: Address that segmentations are sent to besides.
        tta: Average over mirror images.
        folder: Working folder, for the embedded registry.
    """

    source: str
    models: tuple[str, ...]
    out_dir: Path
    format: str = "nifti"
    workers: int = 0
    rules: Path | None = None
    limit: int | None = None
    resegment: bool = False
    since: date | None = None
    until: date | None = None
    modalities: tuple[str, ...] = ()
    send: str | None = None
    tta: bool = False
    folder: Path = Path()


def open_source(job: ArchiveJob, num_channels: int) -> StudySource:
    """The source that a job names.

    Raises:
        UsageError: The address cannot be used, or a choice does not fit the kind of source.
    """
    rules = read_rules(job.rules) if job.rules else None
    if "://" in job.source:
        query = Query(since=job.since, until=job.until, modalities=job.modalities)
        return source_at(job.source, query=query, num_channels=num_channels, rules=rules)
    if job.until is not None or job.modalities:
        raise UsageError("--until and --modality ask a PACS; a folder knows --since only")
    since = datetime.combine(job.since, time.min) if job.since else None
    return FolderSource(
        Path(job.source), num_channels, rules, since=since, skip=(job.out_dir.resolve(),)
    )


def run_archive(
    job: ArchiveJob, on_outcome: Callable[[StudyOutcome], None] | None = None
) -> dict[str, Any]:
    """Segment the archive; writes `model.json` beside `outcomes.json`.

    Args:
        job: What to do.
        on_outcome: Called with each outcome as it comes.

    Returns:
        The models, with version and hash, and every outcome.
    """
    resolved = [resolve_model(reference, folder=job.folder) for reference in job.models]
    paths = tuple(entry.path for entry in resolved)
    packages = read_packages(paths)
    source = open_source(job, len(packages[0].plan.channels))
    crew = _crew(job, paths, packages)
    outcomes = []
    for outcome in segment_archive(
        source,
        predictor=crew,
        out_dir=job.out_dir,
        format=job.format,
        delivery=delivery_at(job.send) if job.send else None,
        choices=Choices(limit=job.limit, resegment=job.resegment),
    ):
        outcomes.append(asdict(outcome))
        log_outcome(outcome)
        if on_outcome is not None:
            on_outcome(outcome)
    _write_models(resolved, job.out_dir)
    return {"models": [entry.record() for entry in resolved], "outcomes": outcomes}


def _crew(
    job: ArchiveJob, paths: tuple[Path, ...], packages: Sequence[ModelPackage]
) -> Workers | Predictor:
    if job.workers:
        return Workers(paths, job.workers, {"tta": job.tta})
    return Predictor(packages, engine="torch", tta=job.tta)  # one engine: equal outputs in reruns


def preview(job: ArchiveJob) -> Iterator[StudyOutcome]:
    """What `run_archive` would do; nothing is written."""
    resolved = [resolve_model(reference, folder=job.folder) for reference in job.models]
    packages = read_packages(tuple(entry.path for entry in resolved))
    source = open_source(job, len(packages[0].plan.channels))
    yield from preview_archive(
        source,
        model=model_of(packages),
        out_dir=job.out_dir,
        format=job.format,
        tta=job.tta,
    )


def _write_models(resolved: list[Resolved], out_dir: Path) -> None:
    """Keep a record of every model that outputs here may come from, by hash."""
    path = out_dir / "model.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    known |= {entry.hash: entry.record() for entry in resolved}
    beside = out_dir / ".model.json.new"
    beside.write_text(json.dumps(known, indent=2), encoding="utf-8")
    beside.replace(path)
