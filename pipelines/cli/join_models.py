"""`segmed model join`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.arguments import require_file, require_models
from pipelines.cli.nnunet import AliasOption, PackageOption, RegisterOption, require_place
from pipelines.terminal.console import JsonOption, emit
from segmed.errors import UsageError


def join(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Part models: models:/NAME@alias, folder or zip."),
    ],
    name: Annotated[str, typer.Option(help="Name of the joined model.")],
    label_map: Annotated[
        Path | None,
        typer.Option(
            help="JSON of the label value of each structure, by name; 1, 2, ... in order if not "
            "given."
        ),
    ] = None,
    out: PackageOption = None,
    register: RegisterOption = False,
    alias: AliasOption = None,
    as_json: JsonOption = False,
) -> None:
    """Join models of different structures to one package with one label map.

    The models were imported from nnU-Net (or a MONAI bundle) and share channels, grid and windows.
    A voxel that several claim gets the structure whose logit exceeds its model's background most.

    Example: segmed model join models:/organs@champion models:/bones@champion --name total
    """
    require_models(models)
    require_place(out, alias, register=register)
    require_file(label_map, "--label-map")
    values = None if label_map is None else read_label_map(label_map)
    from pipelines.registry.made_packages import Keeping, join_models

    record = join_models(models, Keeping(name, out, register, alias), label_map=values)
    emit(record, _lines(record), as_json=as_json)


def read_label_map(path: Path) -> dict[str, int]:
    """Label values by name, or names by label value.

    Raises:
        UsageError: The file is no JSON object of names and whole numbers.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--label-map {path} is not JSON: {error}") from error
    if isinstance(content, dict) and content:
        if all(type(value) is int for value in content.values()):
            return {str(name): value for name, value in content.items()}
        named = all(isinstance(name, str) for name in content.values())
        if named and all(key.isdecimal() for key in content):
            return {name: int(value) for value, name in content.items()}
    raise UsageError(
        f'--label-map {path} must be an object such as {{"liver": 5, "spleen": 1}} or '
        '{"1": "spleen", "5": "liver"}'
    )


def _lines(record: dict[str, Any]) -> list[str]:
    made = record["provenance"]
    rows = {
        "package": record["path"],
        "model": record["model"],
        "hash": record["hash"],
        "networks": str(record["members"]),
        "labels": ", ".join(f"{value} {name}" for name, value in record["labels"].items()),
        "overlaps": made["overlap_rule"],
        "mirrored": "by default" if record["tta"] else "no",
        "cleaning": record["postprocessing"],
        "licence": made.get("weights_licence", "not stated of every part"),
    }
    return [f"{title:<12}{value}" for title, value in rows.items() if value]
