"""`segmed manifest export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.arguments import (
    MaxVoxelsOption,
    allow_voxels,
    require_known,
    require_manifest,
)
from pipelines.terminal.console import JsonOption, counting, emit

FORMS = ("nnunet",)
"""Layouts that `segmed manifest export` writes."""


def export(
    manifest_path: Annotated[Path, typer.Argument(metavar="M.json", help="Manifest to export.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; it must not exist.")],
    form: Annotated[
        str, typer.Option("--format", help="Form to write: nnunet, a raw folder of nnU-Net.")
    ] = ("nnunet"),
    max_voxels: MaxVoxelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a set for another tool, with its regions, unannotated voxels and folds.

    Example: segmed manifest export hippocampus.json -o nnUNet_raw/Dataset004_Hippocampus
    """
    allow_voxels(max_voxels)
    require_manifest(manifest_path)
    require_known("format", form, FORMS)
    from segmed.manifest import read_manifest, write_nnunet
    from segmed.manifest.to_nnunet import nnunet_labels, written_lines

    manifest = read_manifest(manifest_path)
    with counting("written") as show:
        write_nnunet(manifest, out, progress=show)
    labels = nnunet_labels(manifest)
    record = {
        "folder": str(out),
        "training": len(manifest.training),
        "test": len(manifest.test),
        "labels": labels.table,
        "regions_class_order": list(labels.paint),
    }
    emit(record, list(written_lines(manifest, out)), as_json=as_json)
