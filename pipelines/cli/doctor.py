"""`segmed doctor`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipelines.terminal.console import DONE_WITH_FAILURES, JsonOption, emit, say


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(doctor)


def doctor(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Output folder of archive runs.")
    ] = None,
    archive: Annotated[Path | None, typer.Option(help="Folder that archive runs segment.")] = None,
    model: Annotated[str | None, typer.Option(help="Model of the archive runs.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check this installation and its servers and suggest repairs; exit status 1 for a problem.

    Versions, device, memory, disks, permissions, ledger, clock, MLflow, Prefect and its schedules.
    A warning alone leaves the status at 0. Nothing is changed.

    Example: segmed doctor -o segmentations --archive scans --model models:/hippocampus@champion
    """
    from pipelines.doctor import ExaminationTarget, Finding, examine

    found: list[Finding] = []
    for finding in examine(ExaminationTarget(out_dir=out, archive=archive, model=model)):
        found.append(finding)
        if not as_json:
            say(finding.line())
    problems = [
        finding.line().removeprefix("problem: ") for finding in found if finding.state == "problem"
    ]
    if as_json:
        findings = [asdict(finding) for finding in found]
        emit({"findings": findings, "problems": problems}, [], as_json=True)
    else:
        say(f"{len(problems)} problems" if problems else "no problems found")
    if problems:
        raise typer.Exit(DONE_WITH_FAILURES)
