"""`segmed archive find|list`: which output is of which input, both ways."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.archive_corrections import corrections
from pipelines.terminal.console import DONE_WITH_FAILURES, JsonOption, emit

if TYPE_CHECKING:
    from segmed.archive.index import IndexRow

OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="Output folder of the run; by default found from the paths or in the current folder.",
    ),
]


def add_to(group: typer.Typer) -> None:
    """Register the commands."""
    group.command("find")(find)
    group.command("corrections")(corrections)
    group.command("list")(list_outputs)


def find(
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXT...",
            help="Part of a path, UID, output or study name, or the path of an image or a "
            "segmentation, wherever it is now; all of them must match.",
        ),
    ],
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the output of an input and the input of an output; status 1 if nothing matches.

    Example: segmed archive find sub-07 -o segmentations
    """
    from segmed.archive.index import archives_near, find_inputs_of

    words = texts
    if out is None and len(texts) > 1 and (Path(texts[0]) / "ledger.sqlite").is_file():
        out, words = Path(texts[0]), texts[1:]
    folders = [out] if out is not None else archives_near(words)
    _show([(folder, row) for folder in folders for row in find_inputs_of(folder, words)], as_json)


def list_outputs(
    out: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]",
            help="Output folder of the run; by default found in the current folder.",
        ),
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(help="Only inputs in this state: done, refused, failed, pending or replaced."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List every input of an archive with its output or the reason why there is none.

    Example: segmed archive list segmentations --status refused
    """
    from segmed.archive.index import STATUS, archives_near, list_index
    from segmed.errors import unknown_name

    if status is not None and status not in STATUS.values():
        raise unknown_name("status", status, sorted(set(STATUS.values())))
    folders = [out] if out is not None else archives_near(())
    rows = [(folder, row) for folder in folders for row in list_index(folder)]
    _show([(folder, row) for folder, row in rows if status in {None, row.status}], as_json)


def _show(found: list[tuple[Path, IndexRow]], as_json: bool) -> None:
    lines = [line for folder, row in found for line in _lines(folder, row)]
    records = [{"folder": str(folder), **asdict(row)} for folder, row in found]
    emit(records, lines or ["nothing found"], as_json=as_json)
    if not found:
        raise typer.Exit(DONE_WITH_FAILURES)


def _lines(folder: Path, row: IndexRow) -> Iterable[str]:
    source = row.input or f"series {row.uids}"
    version = f" version {row.version}" if row.version else ""
    model = f"{row.model or 'model'}{version} ({row.package[:12]})"
    if row.output:
        flags = f", flags: {row.flags}" if row.flags else ""
        yield f"{row.status}: {folder / row.output} < {source}, {model}{flags}"
        return
    ending = f": {row.reason}: {row.message}" if row.reason else ""
    yield f"{row.status}: study {row.study} < {source}{ending}"
    for path in row.fetch_again:
        yield f"  fetch again: {path}"
