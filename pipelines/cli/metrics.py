"""`segmed metrics`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from pipelines.terminal.console import note


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(metrics)


def metrics(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of the archive runs.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 9109,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Answer Prometheus for an output folder, until stopped: studies by state, runs, disk.

    The figures come from the ledger at each question, so they are also valid between the runs of
    `segmed serve`, and after a run that was killed.

    Example: segmed metrics segmentations --port 9109
    """
    from pipelines.runs.metrics import serving_metrics

    with serving_metrics(out, port, host):
        note(f"metrics: http://{host}:{port}/metrics; stop with Ctrl-C")
        threading.Event().wait()
