"""`segmed deidentify`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.arguments import require_any, require_out
from pipelines.terminal.console import DONE_WITH_FAILURES, JsonOption, emit


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(deidentify)


def deidentify(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="SRC...", help="DICOM files, or folders of these.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the copies.")],
    salt: Annotated[
        Path | None,
        typer.Option(
            help="File with the site's secret. Default: SEGMED_SALT_FILE or ~/.config/segmed/salt."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Copy DICOM images and segmentations without what identifies the patient (PS3.15, basic).

    Identifiers become functions of the old ones and a secret salt, so images and segmentations
    still refer to each other, also when they are treated on different days.

    Example: segmed deidentify dicom_series segmentations -o to_share
    """
    require_any(inputs, "DICOM files or folders of these")
    require_out(out)
    from segmed.errors import ImageError
    from segmed.io.dicom.deidentify import deidentify_file
    from segmed.io.salt import read_salt, salt_path

    secret = read_salt(salt or salt_path())
    done, refused = [], []
    for number, path in enumerate(_files(inputs, out), 1):
        try:
            done.append(str(deidentify_file(path, out, secret).relative_to(out)))
        except ImageError as error:
            # its path may name a patient: the number in the order of the paths does not
            refused.append({"file": number, "reason": error.reason})
    emit(
        {"written": done, "refused": refused},
        [
            *(f"refused: file {entry['file']}: {entry['reason']}" for entry in refused),
            f"{len(done)} written to {out}, {len(refused)} refused",
        ],
        as_json=as_json,
    )
    if refused:
        raise typer.Exit(DONE_WITH_FAILURES)


def _files(inputs: Sequence[Path], out: Path) -> Iterator[Path]:
    """Every plain file below the inputs, in order; none of ours.

    Raises:
        UsageError: An input does not exist.
    """
    from segmed.errors import UsageError

    for path in inputs:
        if not path.exists():
            raise UsageError(f"{path} does not exist; name DICOM files or folders of these")
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in inside:
            ours = file.resolve().is_relative_to(out.resolve())
            if file.is_file() and not file.name.startswith(".") and not ours:
                yield file
