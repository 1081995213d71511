"""`segmed archive segment|status|retry`; `find` and `list` are in `archive_index`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli import archive_index
from pipelines.cli.arguments import (
    MaxVoxelsOption,
    allow_voxels,
    require_devices,
    require_file,
    require_models,
    require_out,
    require_source,
)
from pipelines.cli.segmenting_options import (
    AllFramesOption,
    ClusterOption,
    DevicesOption,
    EngineOption,
    ModelOption,
    OutputFormatOption,
    ReportOption,
    SameNamesOption,
    SegOption,
    SendOption,
    SendReportOption,
    SeriesRulesOption,
    SeveralOption,
    TtaOption,
)
from pipelines.terminal.console import (
    DONE_WITH_FAILURES,
    JsonOption,
    continued_by,
    counting_up,
    emit,
)
from segmed.errors import UsageError

if TYPE_CHECKING:
    from pipelines.runs.archiving import ArchiveJob
    from segmed.archive import StudyOutcome
    from segmed.archive.study import NotImage

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of the run.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    group = typer.Typer(no_args_is_help=True, help="Segment whole archives, each study once.")
    group.command("segment")(segment)
    group.command("status")(status)
    group.command("retry")(retry)
    archive_index.add_to(group)
    app.add_typer(group, name="archive")


def segment(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="Folder, dicomweb://... or dimse://...")
    ],
    model: ModelOption,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of outputs, ledger and outcomes.")
    ],
    output_format: OutputFormatOption = "nifti",
    seg: SegOption = "binary",
    all_frames: AllFramesOption = False,
    report: ReportOption = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Worker processes; 0: segment in this process.")
    ] = 0,
    rules: SeriesRulesOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many studies.")] = None,
    resegment: Annotated[
        bool,
        typer.Option(
            "--resegment", help="Also segment studies again that were done by another model."
        ),
    ] = False,
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="Only studies of this day or later; in a folder, files changed since.",
        ),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="Only studies of this day or earlier; in a folder, files changed until.",
        ),
    ] = None,
    modality: Annotated[
        list[str] | None, typer.Option(help="Only DICOM series of this modality; repeatable.")
    ] = None,
    description: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Only DICOM series whose SeriesDescription matches."),
    ] = None,
    body_part: Annotated[
        str | None, typer.Option(help="Only DICOM series of this body part.")
    ] = None,
    unsegmented: Annotated[
        bool, typer.Option("--unsegmented", help="Only DICOM studies without a segmentation.")
    ] = False,
    send: SendOption = None,
    send_report: SendReportOption = None,
    engine: EngineOption = "auto",
    tta: TtaOption = None,
    device: DevicesOption = None,
    cluster: ClusterOption = None,
    several: SeveralOption = "ensemble",
    same_names: SameNamesOption = None,
    any_modality: Annotated[
        bool,
        typer.Option(
            "--any-modality",
            help="Also take DICOM series of another modality or body part than the "
            "model's; studies refused before are tried again after `segmed archive retry`.",
        ),
    ] = False,
    table: Annotated[
        str, typer.Option(help="Format of the table of volumes: csv or parquet.")
    ] = "csv",
    names: Annotated[
        str | None,
        typer.Option(
            help="Names of the outputs: source (folder and name of the image) or hash. "
            "Default: source for image files, hash for DICOM and PACS."
        ),
    ] = None,
    max_voxels: MaxVoxelsOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done, and why.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Segment every study of an archive exactly once; status 1 where one was refused or failed.

    Example: segmed archive segment scans --model models:/hippocampus@champion -o segmentations
    """
    allow_voxels(max_voxels)
    require_models(model)
    require_source(source)
    require_file(rules, "--rules")
    require_out(out)
    devices = require_devices(device)
    from pipelines.runs.archiving import ArchiveJob, preview, run_archive
    from pipelines.runs.several import several_named

    job = ArchiveJob(
        source=source,
        models=tuple(model),
        out_dir=out,
        format=output_format,
        workers=workers,
        rules=rules,
        limit=limit,
        resegment=resegment,
        since=since.date() if since else None,
        until=until.date() if until else None,
        modalities=tuple(modality or ()),
        description=description,
        body_part=body_part,
        not_segmented=unsegmented,
        send=send,
        tta=tta,
        engine=engine,
        devices=devices,
        cluster=cluster,
        table=table,
        names=names,
        any_modality=any_modality,
        seg=seg,
        all_frames=all_frames,
        reports=tuple(report or ()),
        send_reports=tuple(send_report or ()),
        several=several_named(several),
        same_names=same_names,
    )
    if dry_run:
        passed_over: list[NotImage] = []
        outcomes = [asdict(outcome) for outcome in preview(job, passed_over.append)]
        emit(outcomes, [*_preview_lines(outcomes), *_passed_over(passed_over)], as_json=as_json)
        return
    with continued_by(), counting_up(_outcome_line, unit="studies") as show:
        total = show.expect if show.is_bar and limit is None else None
        record = _on_cluster(job) if cluster else run_archive(job, show, on_total=total)
    models = map(_model_line, record["models"])
    lines = [
        *_lines(record["outcomes"]),
        *_alarms(record),
        *models,
        *(f"report: {part.out_dir / 'report.html'}" for part in job.parts),
        *(f"index of outputs and inputs: {part.out_dir / 'index.csv'}" for part in job.parts),
    ]
    if not record["outcomes"] and "://" not in source and not job.is_selective:
        raise UsageError(f"{source} contains no image: no file of it is a series or an image")
    emit(record, lines, as_json=as_json)
    if any(entry["status"] != "done" for entry in record["outcomes"]):
        raise typer.Exit(DONE_WITH_FAILURES)


def _preview_lines(outcomes: list[dict[str, object]]) -> list[str]:
    """A line for each study of a dry run: what would happen to it, and why."""
    why = {
        "pending": "would be segmented: no output of this model yet",
        "done": "would be passed over: segmented before",
        "refused": "would be refused",
        "failed": "would be tried again by `segmed archive retry` alone",
    }
    chosen = [
        f"study {e['study']} ({e['form']}): {e['place']}: {why[str(e['status'])]}"
        + (f": {e['reason']}" if e["reason"] else f", as {e['output']}" if e["output"] else "")
        + "".join(f"; {reason}" for reason in _texts(e, "because"))
        for e in outcomes
    ]
    return [*chosen, _lines(outcomes)[-1]]


def _passed_over(files: list[NotImage]) -> list[str]:
    """A line for each folder and reason: how many files a run would pass over."""
    counts = Counter((str(Path(file.place).parent), file.why) for file in files)
    return [
        f"passed over: {number} file{'s'[: number > 1]} in {folder}: {why}"
        for (folder, why), number in counts.items()
    ]


def _model_line(model: dict[str, str | None]) -> str:
    """Describe the model of an output."""
    version = f", version {model['version']}" if model["version"] else ""
    return f"model: {model['model']}{version}, hash {str(model['hash'])[:12]}"


def _alarms(record: dict[str, Any]) -> list[str]:
    """A line for each alarm of the drift watch, and the promise about unreviewed results."""
    from pipelines.runs.summary import describe_drift
    from segmed.archive.drift import DriftRow

    rows = [DriftRow(**row) for row in record["drift"]]
    found = [f"drift alarm: {describe_drift(row)}" for row in rows if row.is_alarm]
    return [*found, *([f"predicted quality: {record['quality']}"] if record["quality"] else [])]


def _on_cluster(job: ArchiveJob) -> dict[str, Any]:
    """Run the archive's flow, whose tasks go to the cluster; what it came to is on disk."""
    from pipelines.flows.runner import run_flow
    from pipelines.flows.segment_archive import archive_flow
    from segmed.archive.drift import read_drift
    from segmed.archive.quality_bound import read_bound

    run_flow(archive_flow(job), job)
    return {
        "models": list(
            json.loads((job.out_dir / "model.json").read_text(encoding="utf-8")).values()
        ),
        "outcomes": json.loads((job.out_dir / "outcomes.json").read_text(encoding="utf-8")),
        "drift": [asdict(row) for row in read_drift(job.out_dir)],
        "quality": read_bound(job.out_dir).sentence,
    }


def _outcome_line(outcome: StudyOutcome) -> str:
    """A study that was worked on, in a line; nothing about those that were settled before."""
    if not outcome.fresh:
        return ""
    ending = outcome.reason or f"{outcome.seconds:.1f} s"
    return f"study {outcome.study}: {outcome.status}, {ending}"


def _lines(outcomes: list[dict[str, object]]) -> list[str]:
    counts: dict[str, int] = {}
    for entry in outcomes:
        counts[str(entry["status"])] = counts.get(str(entry["status"]), 0) + 1
    bad = [e for e in outcomes if e["status"] in {"refused", "failed"}]
    total = ", ".join(f"{number} {status}" for status, number in counts.items()) or "no study"
    notes = {f"note: study {e['study']}: {note}": None for e in outcomes for note in _notes(e)}
    return [*[f"{e['status']}: study {e['study']}: {e['reason']}" for e in bad], *notes, total]


def _notes(outcome: dict[str, object]) -> list[str]:
    """Remarks on one study; outcomes that an earlier version wrote have none."""
    return _texts(outcome, "notes")


def _texts(outcome: dict[str, object], key: str) -> list[str]:
    found = outcome.get(key, [])
    return list(found) if isinstance(found, list | tuple) else []


def status(out: FolderArgument, as_json: JsonOption = False) -> None:
    """Show the status of an archive, also during a run.

    Example: segmed archive status segmentations
    """
    from segmed.archive import archive_status

    found = archive_status(out)
    lines = [f"{state}: {number}" for state, number in found.counts.items()]
    lines += [f"{o.status}: study {o.study}: {o.reason}" for o in found.refused_and_failed]
    lines.append(
        f"files: {found.files_in_studies} in studies, {found.files_without_image} without an image"
    )
    emit(asdict(found), lines, as_json=as_json)


def retry(out: FolderArgument, as_json: JsonOption = False) -> None:
    """Let the next run try refused and failed studies again.

    Example: segmed archive retry segmentations
    """
    from segmed.archive import retry_archive

    number = retry_archive(out)
    emit(
        {"reopened": number},
        [f"{number} studies will be tried again by the next `segmed archive segment`"],
        as_json=as_json,
    )
