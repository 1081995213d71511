"""`segmed manifest scan|build|check|export` and `segmed plan`."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.cli.arguments import (
    MaxVoxelsOption,
    allow_voxels,
    require_any,
    require_manifest,
    require_out_file,
)
from pipelines.cli.corrections import add_corrections
from pipelines.cli.manifest_build import build
from pipelines.cli.manifest_export import export
from pipelines.terminal.console import (
    DONE_WITH_FAILURES,
    JsonOption,
    counting,
    emit,
    program,
    table,
)

ManifestArgument = Annotated[Path, typer.Argument(metavar="M.json", help="Manifest of the set.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    group = typer.Typer(no_args_is_help=True, help="Sets of images, labels and folds.")
    group.command("scan")(scan)
    group.command("build")(build)
    group.command("check")(check)
    group.command("add-corrections")(add_corrections)
    group.command("export")(export)
    app.add_typer(group, name="manifest")
    app.command("plan")(plan)


def scan(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="Folder to search, any tree of files.")
    ],
    sort_into: Annotated[
        Path | None,
        typer.Option(
            help="Create a folder of links or copies for each usable series in this folder."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Audit every DICOM series of a tree by its headers; status 1 where one is refused.

    Example: segmed manifest scan incoming --sort-into sorted
    """
    require_any([source], "a folder of DICOM files")
    from segmed.io.dicom.scan import scan as scan_tree
    from segmed.io.dicom.sort import sort_series

    audits = scan_tree(source)
    rows = [
        {
            "series": audit.name,
            "folder": os.path.relpath(audit.files[0].parent, source) if audit.files else "",
            "description": audit.description,
            "patient": audit.patient_key,
            "modality": audit.modality,
            "files": len(audit.files),
            "shape": "x".join(map(str, audit.shape)),
            "spacing": "x".join(f"{edge:.4g}" for edge in audit.spacing_mm),
            "verdict": audit.reason or "usable",
            "found": "; ".join([audit.message] if audit.message else audit.notes),
        }
        for audit in audits
    ]
    refused = [audit for audit in audits if audit.reason not in {None, "not_image"}]
    usable = sum(audit.usable for audit in audits)
    lines = table(rows, list(rows[0])) if rows else []
    lines.append(f"{len(audits)} series: {usable} usable, {len(refused)} refused")
    if sort_into is not None:
        placed = sort_series(audits, sort_into)
        words = f"{program()} manifest build {shlex.quote(str(sort_into))} -o set.json"
        lines.append(f"{sort_into}: {len(placed)} series; next: {words}")
    for row, audit in zip(rows, audits, strict=True):
        row["offending"] = [str(path) for path in audit.offending]
    emit(rows, lines, as_json=as_json)
    if refused:
        raise typer.Exit(DONE_WITH_FAILURES)


def check(
    manifest_path: ManifestArgument,
    workers: Annotated[int, typer.Option(min=1, help="Number of cases to read at once.")] = 2,
    write_clean: Annotated[
        Path | None,
        typer.Option(help="Write the manifest without unusable cases, and the reasons beside it."),
    ] = None,
    max_voxels: MaxVoxelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Audit every case and list each fault; status 1 where there is one.

    Example: segmed manifest check hippocampus.json
    """
    allow_voxels(max_voxels)
    require_manifest(manifest_path)
    from segmed.manifest import check_manifest, guesses_of, read_manifest
    from segmed.manifest import write_clean as write_clean_manifest

    manifest = read_manifest(manifest_path)
    with counting("checked") as show:
        faults = check_manifest(manifest, workers=workers, progress=show)
    errors = [fault for fault in faults if fault.severity == "error"]
    cases = len(manifest.training) + len(manifest.test)
    rows = [
        {"": f.severity, "case": f.case_id, "fault": f.code, "found": f.message} for f in faults
    ]
    lines = table(rows, ["", "case", "fault", "found"]) if rows else []
    guesses = guesses_of(manifest)
    lines += [guess.line for guess in guesses]
    lines.append(f"{cases} cases, {len(errors)} faults, {len(faults) - len(errors)} notes")
    if write_clean is not None:
        dropped = write_clean_manifest(manifest, faults, write_clean)
        lines.append(f"{write_clean}: {cases - len(dropped)} fit cases, {len(dropped)} dropped")
    record = {
        "cases": cases,
        "faults": [asdict(fault) for fault in faults],
        "guesses": [asdict(guess) for guess in guesses],
    }
    emit(record, lines, as_json=as_json)
    if errors:
        raise typer.Exit(DONE_WITH_FAILURES)


def plan(
    manifest_path: ManifestArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Plan to write.")] = Path("plan.yaml"),
    spatial_dims: Annotated[
        int | None, typer.Option(min=2, max=3, help="2 or 3. Default: as the images have.")
    ] = None,
    memory_gb: Annotated[
        float | None,
        typer.Option(
            help="Memory of the training, in GB. Default: most of the GPU's, or 8 on a CPU."
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Networks: small, full or residual (residual encoders, for long trainings on a "
            "GPU); by default full on a GPU, else small."
        ),
    ] = None,
    bias_correction: Annotated[
        bool,
        typer.Option("--bias-correction", help="Correct bias fields of MR channels (N4) first."),
    ] = False,
    flips: Annotated[
        str,
        typer.Option(
            metavar="AXES",
            help="Axes to mirror images along: 0 (left-right in volumes), 0,1 or none; by the "
            "labels' names if auto.",
        ),
    ] = "auto",
    budget: Annotated[
        str | None,
        typer.Option(
            help="Time of one training, such as 10m or 10m-cpu: a short one takes coarser images."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Device of the training: auto, cpu, cuda.")] = "auto",
    max_voxels: MaxVoxelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decide spacing, patch, networks and recipe from data and time, with reasons.

    Example: segmed plan hippocampus.json -o plan.yaml --budget 10m
    """
    allow_voxels(max_voxels)
    require_manifest(manifest_path)
    require_out_file(out, "plan.yaml")
    from pipelines.comparing.resources import memory_for, resources_for, size_for
    from segmed.manifest import guesses_of, read_manifest
    from segmed.plan import plan_hash, write_plan
    from segmed.plan.make import make_plan
    from segmed.training import Budget

    resources = resources_for(Budget.parse(budget), device) if budget else None
    wish: Literal[2, 3] | None = None if spatial_dims is None else (2 if spatial_dims == 2 else 3)
    manifest = read_manifest(manifest_path)
    with counting("looked at") as show:
        made = make_plan(
            manifest,
            spatial_dims=wish,
            memory_gb=memory_gb or memory_for(device),
            size=size_for(size, device),
            bias_correction=bias_correction,
            flips=_axes_named(flips),
            resources=resources,
            progress=show,
        )
    write_plan(made, out)
    facts = {
        "plan": str(out),
        "hash": plan_hash(made),
        "spatial_dims": made.spatial_dims,
        "spacing_mm": list(made.preprocessing.spacing_mm),
        "patch_size": list(made.patch_size),
    }
    lines = [f"{key}: {value}" for key, value in facts.items()]
    lines.append(f"spacing: {made.reasons['preprocessing.spacing_mm']}")
    lines.append(f"patch: {made.reasons['patch_size']}")
    lines.append(f"flips: {made.reasons['recipe.augmentation.flip_axes']}")
    guesses = guesses_of(manifest)
    lines += [guess.line for guess in guesses if guess.subject != "sides"]
    emit(
        {**facts, "guesses": [asdict(guess) for guess in guesses]},
        [
            *lines,
            f"next: {program()} train {shlex.quote(str(manifest_path))} "
            f"--plan {shlex.quote(str(out))} --model unet",
        ],
        as_json=as_json,
    )


def _axes_named(text: str) -> tuple[int, ...] | None:
    """The axes of `--flips`; None for `auto`."""
    from segmed.errors import UsageError

    if text in {"auto", "none"}:
        return None if text == "auto" else ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--flips {text!r}: write auto, none, or axes such as 0 or 0,1") from None
