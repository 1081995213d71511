"""`segmed watch`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.arguments import (
    MaxVoxelsOption,
    allow_voxels,
    require_devices,
    require_file,
    require_models,
    require_out,
)
from pipelines.cli.segmenting_options import (
    AllFramesOption,
    DevicesOption,
    EngineOption,
    OutputFormatOption,
    ReportOption,
    SameNamesOption,
    SegOption,
    SendOption,
    SendReportOption,
    SeveralOption,
    TtaOption,
)
from pipelines.terminal.console import DONE_WITH_FAILURES, continued_by, emit, note, plain, say

if TYPE_CHECKING:
    from pipelines.runs.watch_preview import StudyForecast
    from pipelines.runs.watching import WatchJob
    from segmed.archive.watch.times import WatchedOutcome


FORESEEN = {
    "pending": "would be segmented",
    "done": "would be passed over, segmented before",
    "refused": "would be refused",
    "failed": "would be tried again",
}
"""Foreseen outcomes in words."""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(watch)


def watch(
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS",
            help="DICOM node to open, dimse://TITLE@HOST:PORT, or server to query: "
            "orthanc://HOST:8042, dicomweb://HOST/PATH.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of images, queue, outputs and ledger.")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model package or models:/NAME@ALIAS, for rules that name none; repeatable, see "
            "--several."
        ),
    ] = None,
    several: SeveralOption = "ensemble",
    same_names: SameNamesOption = None,
    rules: Annotated[
        Path | None,
        typer.Option(help="YAML rules: which studies, which model, which output, how urgent."),
    ] = None,
    output_format: OutputFormatOption = "nifti",
    seg: SegOption = "binary",
    all_frames: AllFramesOption = False,
    report: ReportOption = None,
    send_report: SendReportOption = None,
    send: SendOption = None,
    quiet: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="SECONDS",
            help="Time without a new instance after which a study is complete; 20 without --rules.",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(min=0, help="Worker processes for each model; 0: segment in this process."),
    ] = 0,
    device: DevicesOption = None,
    engine: EngineOption = "auto",
    tta: TtaOption = None,
    any_modality: Annotated[
        bool,
        typer.Option(
            "--any-modality",
            help="Also take series of another modality or body part than the model's.",
        ),
    ] = False,
    names: Annotated[
        str | None, typer.Option(help="Names of the outputs: source (UIDs hashed) or hash.")
    ] = None,
    retry: Annotated[
        float,
        typer.Option(
            min=1.0, metavar="SECONDS", help="Time after which a failed study is tried again."
        ),
    ] = 300.0,
    poll: Annotated[
        float,
        typer.Option(min=0.1, metavar="SECONDS", help="Interval of the queries to a server."),
    ] = 10.0,
    days: Annotated[
        int,
        typer.Option(
            min=1,
            help="Days to look back: studies of a server; changes of Orthanc at the first start.",
        ),
    ] = 2,
    keep_days: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Days after which the images of a finished study are removed. Default: never.",
        ),
    ] = None,
    try_file: Annotated[
        Path | None,
        typer.Option(
            "--try",
            metavar="FILE",
            help="Report which rules take this DICOM file or folder, with what result; write "
            "nothing.",
        ),
    ] = None,
    max_voxels: MaxVoxelsOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object on a line for each study.")
    ] = False,
) -> None:
    """Segment studies as they arrive, each once for each content, until stopped.

    A study that grows after it was segmented is segmented again, and replaces its result. The
    ledger in the output folder claims each study; after a kill the same command goes on.

    Example: segmed watch dimse://SEGMED@0.0.0.0:11112 --model models:/hippocampus@champion -o out
    """
    allow_voxels(max_voxels)
    require_models(model or ())
    require_file(rules, "--rules")
    require_out(out)
    devices = require_devices(device)
    from pipelines.runs.several import several_named
    from pipelines.runs.watching import WatchJob, open_watch

    job = WatchJob(
        address=address,
        out_dir=out,
        models=tuple(model or ()),
        format=output_format,
        seg=seg,
        all_frames=all_frames,
        reports=tuple(report or ()),
        send_reports=tuple(send_report or ()),
        send=send,
        several=several_named(several),
        same_names=same_names,
        rules=rules,
        quiet_s=quiet,
        tta=tta,
        engine=engine,
        workers=workers,
        devices=devices,
        any_modality=any_modality,
        names=names,
        retry_s=retry,
        poll_s=poll,
        days=days,
        keep_days=keep_days,
    )
    if try_file is not None:
        _try(job, try_file, as_json=as_json)
        return
    with continued_by(), ExitStack() as stack:
        found, where = stack.enter_context(open_watch(job))
        note(f"watching: {where}; stop with Ctrl-C")
        for route, outcome in found.outcomes():
            _show(route, outcome, as_json=as_json)


def _try(job: WatchJob, path: Path, *, as_json: bool) -> None:
    """Print the forecast of a file or folder; status 1 if something of it would not be done."""
    from pipelines.runs.watch_preview import foresee

    found = foresee(job, path)
    lines = [line for study in found for line in _forecast_lines(study)]
    emit([asdict(study) for study in found], lines, as_json=as_json)
    if not all(study.is_sound for study in found):
        raise typer.Exit(DONE_WITH_FAILURES)


def _forecast_lines(study: StudyForecast) -> Iterator[str]:
    yield f"study {study.study}: {study.series} series, {study.instances} files"
    for rule in study.rules:
        if not rule.takes:
            why = "; ".join(f"series {n}: {text}" for n, text in enumerate(rule.why, 1))
            yield f"  rule {rule.rule} does not take it: {why}"
            continue
        send = f", sent to {rule.send}" if rule.send else ""
        yield (
            f"  rule {rule.rule} takes it: {rule.priority}, {rule.when}; "
            f"{' and '.join(rule.models)} to {rule.format}{send}"
        )
        for n, text in enumerate(rule.why, 1):
            if text:
                yield f"    series {n} is left out: {text}"
        for work in rule.work:
            end = f": {work.reason}" if work.reason else f", as {work.output}" * bool(work.output)
            yield f"    {FORESEEN[work.status]}{end}"
    if not any(rule.takes for rule in study.rules):
        yield "  no rule takes it: it would be kept and left alone"


def _show(route: str, outcome: WatchedOutcome, *, as_json: bool) -> None:
    """Print a line about a study that was worked on."""
    if as_json:
        import json

        say(json.dumps(plain({"route": route, **asdict(outcome)}), default=str))
    elif outcome.fresh:
        ending = outcome.reason or f"{outcome.output} {outcome.times}"
        say(f"{route}: study {outcome.study}: {outcome.status}, {ending}")
