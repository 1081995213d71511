"""`segmed archive segment|status|retry`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.console import DONE_WITH_FAILURES, JsonOption, continued_by, emit
from pipelines.cli.predict import ModelOption

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of the run.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    group = typer.Typer(no_args_is_help=True, help="Segment whole archives, each study once.")
    group.command("segment")(segment)
    group.command("status")(status)
    group.command("retry")(retry)
    app.add_typer(group, name="archive")


def segment(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="Folder, dicomweb://... or dimse://...")
    ],
    model: ModelOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="Outputs, ledger and outcomes.")],
    output_format: Annotated[
        str, typer.Option("--format", help="nifti, dicom-seg or rtstruct.")
    ] = "nifti",
    workers: Annotated[
        int, typer.Option(min=0, help="Worker processes; 0 segments in this one.")
    ] = 0,
    rules: Annotated[
        Path | None, typer.Option(help="YAML that says which series is which channel.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many studies.")] = None,
    resegment: Annotated[
        bool, typer.Option("--resegment", help="Also what another model has done.")
    ] = False,
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Studies of this day or later.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Of a PACS: or earlier.")
    ] = None,
    modality: Annotated[
        list[str] | None, typer.Option(help="Of a PACS: series of this modality; repeatable.")
    ] = None,
    send: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Also send outputs to this PACS.")
    ] = None,
    tta: Annotated[bool, typer.Option("--tta", help="Average over mirror images.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Segment every study of an archive exactly once; status 1 where one was refused or failed.

    Example: segmed archive segment scans --model models:/hippocampus@champion -o segmentations
    """
    from pipelines.archiving import ArchiveJob, preview, run_archive

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
        send=send,
        tta=tta,
    )
    if dry_run:
        outcomes = [asdict(outcome) for outcome in preview(job)]
        emit(outcomes, _lines(outcomes), as_json=as_json)
        return
    with continued_by():
        record = run_archive(job)
    lines = [*_lines(record["outcomes"]), *map(_model_line, record["models"])]
    emit(record, [*lines, f"outcomes: {out / 'outcomes.json'}"], as_json=as_json)
    if any(entry["status"] != "done" for entry in record["outcomes"]):
        raise typer.Exit(DONE_WITH_FAILURES)


def _model_line(model: dict[str, str | None]) -> str:
    """Which model an output is from."""
    version = f", version {model['version']}" if model["version"] else ""
    return f"model: {model['model']}{version}, hash {str(model['hash'])[:12]}"


def _lines(outcomes: list[dict[str, object]]) -> list[str]:
    counts: dict[str, int] = {}
    for entry in outcomes:
        counts[str(entry["status"])] = counts.get(str(entry["status"]), 0) + 1
    bad = [e for e in outcomes if e["status"] in {"refused", "failed"}]
    total = ", ".join(f"{number} {status}" for status, number in counts.items()) or "no study"
    return [*[f"{e['status']}: study {e['study']}: {e['reason']}" for e in bad], total]


def status(out: FolderArgument, as_json: JsonOption = False) -> None:
    """How an archive run stands, also while it goes on.

    Example: segmed archive status segmentations
    """
    from segmed.archive import archive_status

    found = archive_status(out)
    lines = [f"{state}: {number}" for state, number in found.counts.items()]
    lines += [f"{o.status}: study {o.study}: {o.reason}" for o in found.bad_ends]
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
