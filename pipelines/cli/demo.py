"""`segmed demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.arguments import require_out
from pipelines.terminal.console import JsonOption, continued_by


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(demo)


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of all results.")] = Path("demo"),
    budget: Annotated[
        str | None, typer.Option(help="Time for the five trainings together, such as 6m.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Train for a few steps only, to see that all parts run.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """The whole chain on the bundled sample: train, compare, register, segment an archive.

    Example: segmed demo -o demo
    """
    from segmed.training.budget import Budget

    seconds = Budget.parse(budget).seconds if budget else None
    require_out(out)
    from pipelines.demo.run import run_demo

    with continued_by():
        run_demo(out, seconds, quick, as_json)
