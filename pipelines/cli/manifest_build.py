"""`segmed manifest build`."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.arguments import (
    MaxVoxelsOption,
    allow_voxels,
    require_any,
    require_out_file,
)
from pipelines.terminal.console import JsonOption, counting, emit, program


def build(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of images and labels.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Manifest to write.")],
    layout: Annotated[
        str,
        typer.Option(
            "--format", help="Layout of the folder: auto, msd, nnunet, folders, dicom or raster."
        ),
    ] = "auto",
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Number of folds, drawn by patient. Default: the folds of the source, else 5.",
        ),
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(help="Regular expression whose first group names the patient.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the set.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the folds.")] = 0,
    label_names: Annotated[
        str,
        typer.Option(
            metavar="NAME,...|VALUE=NAME,...",
            help="Names of the structures by growing value, or by value, with commas.",
        ),
    ] = "",
    merge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VALUES=NAME",
            help="Make one structure of several: 127,128=axon or 130-140=axon; repeatable. Label "
            "files stay as they are.",
        ),
    ] = None,
    drop_values: Annotated[
        str,
        typer.Option(metavar="VALUES", help="Label values that become background: 233 or 1-9,12."),
    ] = "",
    region: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VALUES=NAME",
            help="Overlapping structures made of label values, as in BraTS: 1,2,3=whole tumour; "
            "repeatable. Each is learned by a sigmoid of its own.",
        ),
    ] = None,
    ignore_value: Annotated[
        int | None,
        typer.Option(
            metavar="VALUE",
            help="Label value of unannotated voxels: they enter neither training nor "
            "scores. nnU-Net's `ignore` is taken without this.",
        ),
    ] = None,
    label_suffix: Annotated[
        str | None,
        typer.Option(help="Suffix of the masks' names after those of the images: _mask, _1stHO."),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Pattern of the images below SRC; braces list channels: "
            "'sub-*/{FLAIR,T1}.nii.gz'; repeatable, also as NAME=PATTERN.",
        ),
    ] = None,
    label: Annotated[
        str,
        typer.Option(
            metavar="PATTERN",
            help="Pattern of the labels below SRC: 'sub-*/mask.nii.gz'; braces list "
            "structures, one mask each.",
        ),
    ] = "",
    channels: Annotated[
        str,
        typer.Option(metavar="NAME,...", help="Channels to take, in order, or their names."),
    ] = "",
    require: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Drop cases without this channel; repeatable."),
    ] = None,
    masks_folder: Annotated[
        str,
        typer.Option(metavar="DIR", help="Folder with several masks of each image: CASE/*.png."),
    ] = "",
    masks: Annotated[
        str | None,
        typer.Option(
            help="Label map from several masks of a case: union, instances (1, 2, ...) or "
            "structures (by file name)."
        ),
    ] = None,
    modality: Annotated[
        str,
        typer.Option(
            metavar="CODE|NAME=CODE,...",
            help="DICOM modality of all channels (CT), or by channel name (T1=MR,late=CT); by "
            "default from the words of their names.",
        ),
    ] = "",
    max_voxels: MaxVoxelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build a manifest from a folder; what was kept, dropped and guessed is listed.

    Example: segmed manifest build Task04_Hippocampus -o hippocampus.json --format msd
    """
    allow_voxels(max_voxels)
    require_any([source], "a folder of images and labels")
    require_out_file(out, "set.json")
    from segmed.manifest import (
        build_manifest,
        census_lines,
        change_values,
        guesses_of,
        ignore_values,
        make_regions,
        rebase,
        rename_labels,
        state_modalities,
        write_manifest,
    )

    names = _names(label_names)
    # Names by value, and those of what merging leaves, are given once the values are known.
    named_later = "=" in label_names or bool(merge or drop_values or ignore_value or region)
    manifest = build_manifest(
        source,
        format=layout,
        name=name,
        num_folds=folds,
        seed=seed,
        group_by=group_by,
        label_names=() if named_later else names,
        images=tuple(image or ()),
        label=label,
        channels=_names(channels),
        require=tuple(require or ()),
        masks_folder=masks_folder,
        masks=masks,
        label_suffix=label_suffix,
        made_in=out.resolve().parent / f"{out.stem}-labels",
    )
    if ignore_value is not None:
        manifest = ignore_values(manifest, ignore_value)
    manifest = change_values(manifest, merge=_named(merge or [], "--merge"), drop=drop_values)
    if named_later and names:
        manifest = rename_labels(manifest, names)
    regions = {name: parts for parts, name in _named(region or [], "--region").items()}
    manifest = make_regions(manifest, regions)
    manifest = state_modalities(manifest, _modalities_named(modality))
    with counting("labels counted") as show:
        census = census_lines(manifest, progress=show)
    write_manifest(rebase(manifest, out.resolve().parent), out)
    guesses = guesses_of(manifest)
    counts = {"training": len(manifest.training), "test": len(manifest.test)}
    labels = [label.name for label in manifest.labels]
    emit(
        {
            "manifest": str(out),
            **counts,
            "folds": list(manifest.folds),
            "labels": labels,
            "channels": [channel.name for channel in manifest.channels],
            "remarks": list(manifest.remarks),
            "census": census,
            "guesses": [asdict(guess) for guess in guesses],
        },
        [
            *manifest.remarks,
            *census,
            *[guess.line for guess in guesses],
            f"{out}: {counts['training']} training and {counts['test']} test cases, "
            f"{len(manifest.folds)} folds, labels {_shown(labels)}",
            f"next: {program()} manifest check {shlex.quote(str(out))}",
        ],
        as_json=as_json,
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(one.strip() for one in text.split(",") if one.strip())


def _shown(names: list[str], most: int = 20) -> str:
    """Names with commas; of many, the first and the number of the others."""
    left = len(names) - most
    return ", ".join(names[:most]) + (f" and {left} more" if left > 0 else "")


def _named(options: list[str], flag: str) -> dict[str, str]:
    """Names of structures by what they are made of, from `--merge` or `--region`.

    Raises:
        UsageError: One has no values or no name, or two have the same.
    """
    from segmed.errors import UsageError

    found: dict[str, str] = {}
    for option in options:
        parts, sign, name = (part.strip() for part in option.rpartition("="))
        if not sign or not parts or not name:
            raise UsageError(f"{flag} {option!r}: write values and a name, as in 127,128=axon")
        if parts in found or name in found.values():
            raise UsageError(f"{flag} {option!r}: the values or the name are given twice")
        found[parts] = name
    return found


def _modalities_named(text: str) -> dict[str, str]:
    """Modality by channel name from `--modality`; one without a name means all."""
    stated = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, code = part.rpartition("=")
        stated[name.strip()] = code.strip()
    return stated
