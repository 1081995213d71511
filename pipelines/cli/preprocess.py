"""`segmed preprocess`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.arguments import (
    MaxVoxelsOption,
    allow_voxels,
    require_file,
    require_manifest,
    require_out,
)
from pipelines.cli.data import ManifestArgument
from pipelines.terminal.console import JsonOption, continued_by, emit


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(preprocess)


def preprocess(
    manifest_path: ManifestArgument,
    plan: Annotated[Path, typer.Option("--plan", help="Plan of the preprocessing.")],
    cache: Annotated[
        Path, typer.Option(help="Folder of prepared cases; compare and train use OUT/cache.")
    ] = Path("segmed-comparison/cache"),
    max_voxels: MaxVoxelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prepare the training cases of a manifest ahead of its trainings.

    Each case is read, cropped, resampled and scaled once, as the plan says. `segmed train`,
    `segmed compare` and the weekly comparison do the same before their budgets start; cases that
    are in the cache already cost nothing. Test cases are not prepared: no training reads them.

    Example: segmed preprocess hippocampus.json --plan plan.yaml
    """
    allow_voxels(max_voxels)
    require_manifest(manifest_path)
    require_file(plan, "--plan")
    if cache.exists():
        require_out(cache)
    from pipelines.flows.runner import run_flow, start_server_early

    start_server_early()
    from pipelines.comparing.preparing import Preparation
    from pipelines.flows.preprocess import preprocess as flow
    from pipelines.terminal.display import shown_trainings
    from segmed.manifest import read_manifest

    total = len(read_manifest(manifest_path).training)
    with continued_by(), shown_trainings():
        prepared = run_flow(flow, Preparation.parse(manifest_path, plan, cache))
    emit(
        {"cases": total, "prepared": prepared, "kept": total - prepared, "cache": str(cache)},
        [f"{total} cases: {prepared} prepared, {total - prepared} were in the cache", str(cache)],
        as_json=as_json,
    )
