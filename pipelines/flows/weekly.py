"""Weekly flow: train all models on all folds; compare winner and champion at the gate."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from pipelines.comparing.jobs import Request
from pipelines.comparing.steps import refusal
from pipelines.flows.compare import compare
from pipelines.flows.gpu_slot import held_devices
from pipelines.registry.field import field_lines, record_field_scores
from pipelines.registry.promotion import Decision, promote
from pipelines.registry.reference import CHAMPION, parse_reference, short_name
from pipelines.registry.versions import Registry
from pipelines.runs.notices import check_notices, notice_of_failure, send_notices
from pipelines.runs.page import shown_parameter
from segmed.archive.review.archive import ReviewArchive
from segmed.archive.review.cases import add_corrections
from segmed.archive.review.field import field_scores, write_field_scores
from segmed.archive.review.store import REVIEW_FILE
from segmed.io.atomic import write_whole
from segmed.manifest import read_manifest, write_manifest
from segmed.training import Budget, Settings

GATE_KEY = "gate-verdict"


def name_of_week() -> str:
    """Name of a flow run, such as `weekly hippocampus 2026-W48`."""
    model = shown_parameter("job", "model")
    return f"{flow_run.flow_name} {model} {week_of(_scheduled())}"


def week_of(day: datetime) -> str:
    """The ISO week of a day, such as `2026-W48`."""
    year, week, _ = day.isocalendar()
    return f"{year}-W{week:02d}"


def _scheduled() -> datetime:
    """Return the time for which this run was scheduled; a continued run keeps its week."""
    return flow_run.scheduled_start_time or datetime.now(UTC)


@dataclass(frozen=True)
class WeeklyJob:
    """Request for the weekly comparison.

    Attributes:
        manifest: Manifest to compare on; its test cases are the gate's evaluation set.
        model: Registered model.
        out_dir: Folder of the comparisons, one below it for each week.
        hours: Budget of the trainings.
        folder: Working folder, for the embedded registry.
        models: Architectures, separated by commas, or `all`.
        folds: Folds, likewise.
        promotes: Whether the gate decides; else the winner stays challenger.
        size: Size of the networks; by the device if not given.
        archive: Output folder of an archive, whose accepted corrections are trained with.
    """

    manifest: Path
    model: str
    out_dir: Path
    hours: float = 8.0
    folder: Path = Path()
    models: str = "all"
    folds: str = "all"
    promotes: bool = True
    size: str | None = None
    archive: Path | None = None


@flow(name="weekly", flow_run_name=name_of_week)
def weekly(job: WeeklyJob, notify: tuple[str, ...] = ()) -> str:
    """Train and compare all models; the winner is promoted if the gate accepts it.

    Args:
        job: What to compare.
        notify: Notification blocks, or addresses, that receive the outcome.

    Returns:
        The registered version.
    """
    with notice_of_failure(notify, "weekly comparison"):
        check_notices(notify)
        folder = job.out_dir / week_of(_scheduled())
        manifest, corrections = manifest_of_week(job, folder)
        corrections += scores_in_the_field(job)
        request = Request.parse(
            manifest,
            models=job.models,
            folds=job.folds,
            plan=None,
            budget=Budget(seconds=3600.0 * job.hours),
            register=job.model,
            out_dir=folder,
            settings=Settings(resume=True),
        ).of_size(job.size)
        record = compare(request.in_folder(job.folder))
        reference = str(record["registered"])
        with held_devices(("auto",)):
            verdict = decide(reference, replace(job, manifest=manifest)) if job.promotes else None
        remarks = [
            *corrections,
            *record["failures"],
            *([refusal(record)] if record["refused"] else []),
        ]
        subject, body = tell_of(reference, remarks, verdict)
        create_markdown_artifact(f"## {subject}\n\n{body}\n", key=GATE_KEY, description=subject)
        send_notices(notify, f"segmed: {subject}", body)
    return reference


def manifest_of_week(job: WeeklyJob, folder: Path) -> tuple[Path, list[str]]:
    """Manifest to train on: the job's own, or a copy with the accepted corrections of an archive.

    Args:
        job: The request.
        folder: Folder of the week; the copy that a continued run finds there stays as it is.

    Returns:
        The manifest, and sentences on the corrections.
    """
    if job.archive is None or not (job.archive / REVIEW_FILE).exists():
        return job.manifest, []
    path, left_out_path = folder / "manifest.json", folder / "corrections_left_out.json"
    manifest = read_manifest(job.manifest)
    if not path.exists():
        found = add_corrections(manifest, ReviewArchive(job.archive))
        write_whole(left_out_path, json.dumps(found.left_out, indent=1))
        write_manifest(found.manifest, path)
    known = {case.id for case in (*manifest.training, *manifest.test)}
    with_corrections = read_manifest(path)
    added = {
        place: [case.id for case in cases if case.id not in known]
        for place, cases in (
            ("training", with_corrections.training),
            ("the gate's test cases", with_corrections.test),
        )
    }
    lines = [
        f"{len(ids)} accepted corrections are in {place}: {', '.join(ids)}"
        for place, ids in added.items()
        if ids
    ]
    left_out = json.loads(left_out_path.read_bytes()) if left_out_path.exists() else {}
    unused = [f"correction of study {study} left out: {why}" for study, why in left_out.items()]
    return path if lines else job.manifest, [*lines, *unused]


def scores_in_the_field(job: WeeklyJob) -> list[str]:
    """Score the models of an archive by its accepted corrections, in MLflow and beside its ledger.

    Args:
        job: The request.

    Returns:
        The scores in sentences.
    """
    if job.archive is None or not (job.archive / REVIEW_FILE).exists():
        return []
    scores = field_scores(ReviewArchive(job.archive))
    write_field_scores(job.archive, scores)
    return field_lines(scores, record_field_scores(Registry(job.folder), scores))


@task(cache_policy=NO_CACHE)
def decide(reference: str, job: WeeklyJob) -> Decision | None:
    """The gate; None for a version that is champion already, as the first one is."""
    name, version = parse_reference(reference)
    if CHAMPION in Registry(job.folder).version(name, version).aliases:
        return None
    return promote(reference, manifest=job.manifest, folder=job.folder)


def tell_of(reference: str, remarks: list[str], verdict: Decision | None) -> tuple[str, str]:
    """Subject and body of the notice."""
    name = short_name(reference)
    if verdict is None:
        subject = f"weekly comparison: {name} is registered"
    else:
        subject = f"weekly comparison: {name} {'promoted' if verdict.promoted else 'not promoted'}"
    lines = [*(verdict.lines() if verdict else []), *remarks]
    return subject, "\n".join(f"- {line}" for line in lines) or "- no gate was needed"
