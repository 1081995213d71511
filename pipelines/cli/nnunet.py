"""`segmed model import-nnunet`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.arguments import require_any, require_out
from pipelines.terminal.console import JsonOption, emit
from segmed.errors import UsageError

PackageOption = Annotated[
    Path | None, typer.Option("--out", "-o", help="Package folder to write. Default: NAME.")
]
RegisterOption = Annotated[
    bool, typer.Option("--register", help="Register the package as a version of the model.")
]
AliasOption = Annotated[
    str | None, typer.Option(help="Alias of the registered version, such as champion.")
]


def import_nnunet(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="Results folder of one configuration, or an exported zip."
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the model.")],
    folds: Annotated[
        str,
        typer.Option(
            help="Folds whose logits are averaged: `all` that are trained, or a list such as 0,1."
        ),
    ] = "all",
    licence: Annotated[
        str, typer.Option(metavar="TEXT", help="Licence of the weights, for the card.")
    ] = "",
    out: PackageOption = None,
    register: RegisterOption = False,
    alias: AliasOption = None,
    postprocessing: Annotated[
        bool,
        typer.Option(
            "--postprocessing/--no-postprocessing",
            help="Apply the postprocessing that nnU-Net found for exactly these folds.",
        ),
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Make a package of a model that nnU-Net v2 trained; nothing in it is executed.

    Example: segmed model import-nnunet Dataset004_Hippocampus.zip --name hippocampus --register
    """
    require_any([source], "a folder or zip of nnU-Net results")
    require_place(out, alias, register=register)
    from pipelines.registry.made_packages import Keeping, import_folder

    record = import_folder(
        source,
        Keeping(name, out, register, alias),
        folds=chosen_folds(folds),
        licence=licence,
        postprocessing=postprocessing,
    )
    emit(record, _lines(record), as_json=as_json)


def require_place(out: Path | None, alias: str | None, *, register: bool) -> None:
    """Check the options of the place of a package that is to be made.

    Raises:
        UsageError: The folder cannot be made, or an alias is given for what is not registered.
    """
    if out is not None:
        require_out(out)
    if alias is not None and not register:
        raise UsageError(f"--alias {alias} is for registered versions: give --register too")


def chosen_folds(text: str) -> tuple[str, ...]:
    """Names of folds; none for all.

    Raises:
        UsageError: The text is not a list of folds.
    """
    if text.strip() == "all":
        return ()
    names = tuple(part.strip().removeprefix("fold_") for part in text.split(","))
    for one in names:
        if not (one.isdecimal() or one == "all"):
            raise UsageError(
                f"--folds {text!r} is not a list of folds: give all, or numbers such as 0,1,2"
            )
    return names


def _lines(record: dict[str, Any]) -> list[str]:
    made = record["provenance"]
    scores = made.get("fold_scores", {})
    rows = {
        "package": record["path"],
        "model": record["model"],
        "hash": record["hash"],
        "trained by": f"nnU-Net v2, {made['trainer']}, {made['plans']}, {made['configuration']}",
        "folds": ", ".join(made["folds"]),
        "its scores": ", ".join(f"fold {fold} Dice {dice:.3f}" for fold, dice in scores.items()),
        "labels": ", ".join(f"{value} {name}" for name, value in record["labels"].items()),
        "mirrored": "by default" if record["tta"] else "no",
        "cleaning": record["postprocessing"],
        "licence": made.get("weights_licence", "not stated: give --licence TEXT for the card"),
    }
    return [f"{title:<12}{value}" for title, value in rows.items() if value]
