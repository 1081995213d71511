"""`segmed serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.console import note


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(serve)


def serve(
    archive: Annotated[Path, typer.Option(help="Folder that is segmented every night.")],
    model: Annotated[str, typer.Option(help="Model reference, such as models:/NAME@champion.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the segmentations.")],
    manifest: Annotated[
        Path | None, typer.Option(help="Also compare all models on this manifest every week.")
    ] = None,
    nightly_cron: Annotated[str, typer.Option(help="When the archive runs.")] = "0 2 * * *",
    weekly_cron: Annotated[str, typer.Option(help="When the comparison runs.")] = "0 4 * * 0",
) -> None:
    """Serve the schedules until stopped: nightly archive run, weekly comparison.

    Needs a Prefect server that outlives this command (PREFECT_API_URL).

    Example: segmed serve --archive scans --model models:/hippocampus@champion -o segmentations
    """
    from pipelines.flows.schedules import Schedules, serve_schedules

    note("serving; stop with Ctrl-C")
    serve_schedules(
        Schedules(
            archive=archive.resolve(),
            model=model,
            out_dir=out.resolve(),
            manifest=manifest.resolve() if manifest else None,
            nightly_cron=nightly_cron,
            weekly_cron=weekly_cron,
        )
    )
