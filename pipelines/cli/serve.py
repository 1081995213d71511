"""`segmed serve`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.arguments import (
    require_devices,
    require_file,
    require_manifest,
    require_models,
    require_out,
    require_source,
)
from pipelines.cli.segmenting_options import (
    ClusterOption,
    DevicesOption,
    EngineOption,
    OutputFormatOption,
    SendOption,
    SeriesRulesOption,
)
from pipelines.terminal.console import note, say
from segmed.errors import UsageError


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(serve)


def serve(
    archive: Annotated[
        str,
        typer.Option(help="Archive to segment every night: folder, dicomweb://... or dimse://..."),
    ],
    model: Annotated[
        list[str],
        typer.Option(help="Model, such as models:/NAME@champion; repeat to average."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the segmentations.")],
    output_format: OutputFormatOption = "nifti",
    send: SendOption = None,
    rules: SeriesRulesOption = None,
    modality: Annotated[
        list[str] | None, typer.Option(help="Only series of this modality of a PACS; repeatable.")
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, help="Query a PACS for the last DAYS days every night.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Worker processes; 0: segment in the process of the run.")
    ] = 0,
    engine: EngineOption = "auto",
    device: DevicesOption = None,
    cluster: ClusterOption = None,
    manifest: Annotated[
        Path | None, typer.Option(help="Also compare all models on this manifest every week.")
    ] = None,
    weekly_hours: Annotated[float, typer.Option(min=0.0, help="Budget of a comparison.")] = 8.0,
    size: Annotated[
        str | None,
        typer.Option(
            help="Networks of the comparison: small, full or residual; by default full on a "
            "GPU, else small."
        ),
    ] = None,
    promote: Annotated[
        bool,
        typer.Option(
            "--promote/--no-promote",
            help="Compare the winner with the champion and promote it by the gate.",
        ),
    ] = True,
    monthly: Annotated[
        bool,
        typer.Option(
            help="Write a dossier of the model every month, from its archive and its reviews."
        ),
    ] = True,
    nightly_cron: Annotated[str, typer.Option(help="Schedule of the archive run.")] = "0 2 * * *",
    weekly_cron: Annotated[str, typer.Option(help="Schedule of the comparison.")] = "0 4 * * 0",
    monthly_cron: Annotated[
        str, typer.Option(help="Schedule of the monthly dossier.")
    ] = "0 6 1 * *",
    notify: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BLOCK|URL",
            help="Recipient of notices: a notification block (custom-webhook/NAME) or an address.",
        ),
    ] = None,
    work_pool: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Deploy for the workers of this pool and return; paths are those of the workers.",
        ),
    ] = None,
) -> None:
    """Keep the schedules: nightly archive run, weekly comparison, monthly acceptance, on demand.

    Serves until stopped, or deploys to a work pool (--work-pool) whose workers do the rest. Needs a
    Prefect server that outlives this command (PREFECT_API_URL).

    Example: segmed serve --archive scans --model models:/hippocampus@champion -o segmentations
    """
    from pipelines.registry.reference import is_registered, parse_reference

    packages = [name for name in model if not is_registered(name)]
    if work_pool is None:
        require_inputs(archive, packages, rules, manifest)
    else:
        check_inputs_of_workers(archive, packages, rules, manifest, work_pool=work_pool)
    require_out(out)
    devices = require_devices(device)
    from pipelines.comparing.resources import require_known_size

    require_known_size(size)
    from pipelines.flows.schedules import Schedules, serve_schedules
    from pipelines.flows.weekly import WeeklyJob
    from pipelines.registry.monthly import MonthlyJob
    from pipelines.runs.archiving import ArchiveJob

    here = Path.cwd()
    job = ArchiveJob(
        source=archive if "://" in archive else str(Path(archive).resolve()),
        models=tuple(name if is_registered(name) else str(Path(name).resolve()) for name in model),
        out_dir=out.resolve(),
        format=output_format,
        workers=workers,
        rules=rules.resolve() if rules else None,
        modalities=tuple(modality or ()),
        send=send,
        folder=here,
        engine=engine,
        devices=devices,
        cluster=cluster,
    )
    comparison = None
    if manifest is not None:
        comparison = WeeklyJob(
            manifest=manifest.resolve(),
            model=parse_reference(model[0]).name,
            out_dir=out.resolve().with_name("weekly-comparison"),
            hours=weekly_hours,
            size=size,
            folder=here,
            promotes=promote,
            archive=out.resolve(),
        )
    acceptance = MonthlyJob(
        models=job.models,
        archive=job.out_dir,
        out_dir=out.resolve().with_name("monthly-acceptance"),
        folder=here,
    )
    if work_pool is None:
        note("serving; stop with Ctrl-C")
    found = serve_schedules(
        Schedules(
            archive=job,
            weekly=comparison,
            monthly=acceptance if monthly else None,
            nightly_cron=nightly_cron,
            weekly_cron=weekly_cron,
            monthly_cron=monthly_cron,
            days=days,
            notify=tuple(notify or ()),
            work_pool=work_pool,
        )
    )
    for name in found:
        say(f"deployed: {name}")
    if found:
        say(f"start a worker on each machine: prefect worker start --pool {work_pool}")


def require_inputs(
    archive: str, packages: Sequence[str], rules: Path | None, manifest: Path | None
) -> None:
    """Refuse inputs that do not exist on this machine, which runs the schedules itself.

    Raises:
        UsageError: Archive, rules or manifest do not exist.
        PackageError: A package does not exist.
    """
    require_models(packages)
    require_source(archive)
    require_file(rules, "--rules")
    if manifest is not None:
        require_manifest(manifest)


def check_inputs_of_workers(
    archive: str,
    packages: Sequence[str],
    rules: Path | None,
    manifest: Path | None,
    *,
    work_pool: str,
) -> None:
    """Note inputs that do not exist on this machine: the machines of the workers may have them.

    Raises:
        UsageError: A relative path does not exist: it is resolved in the folder of this command.
    """
    folders = [] if "://" in archive else [archive]
    for name in (*folders, *packages, rules, manifest):
        if name is None or Path(name).exists():
            continue
        if not Path(name).is_absolute():
            raise UsageError(
                f"{name} does not exist in {Path.cwd()}; correct it, or give the absolute path on "
                f"the machines of the workers of {work_pool}"
            )
        note(f"{name} does not exist on this machine; the workers of {work_pool} must have it")
