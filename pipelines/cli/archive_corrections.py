"""`segmed archive corrections`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.arguments import require_archive
from pipelines.terminal.console import DONE_WITH_FAILURES, JsonOption, emit
from segmed.errors import UsageError


def corrections(
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS", help="PACS: dicomweb://..., dicomwebs://... or dimse://..."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder of the archive run.")],
    as_json: JsonOption = False,
) -> None:
    """Take corrections that readers stored in a PACS; status 1 where one does not fit.

    Segmentation objects that refer to the series of the archive, and that segmed did not write,
    are saved as accepted corrections in the name of their reader. Segments are matched by name and
    code.

    Example: segmed archive corrections dicomweb://localhost:8042/dicom-web --out segmentations
    """
    if "://" not in address:
        raise UsageError(f"{address!r} is no address of a PACS: write dicomweb://HOST:PORT/...")
    require_archive(out)
    from segmed.archive.pacs.address import source_at
    from segmed.archive.pacs.remote import Query, RemoteSource
    from segmed.archive.review.archive import ReviewArchive
    from segmed.archive.review.from_pacs import take_corrections

    source = source_at(address, query=Query())
    assert isinstance(source, RemoteSource)
    found = take_corrections(ReviewArchive(out), source)
    number = sum(map(len, found.linked.values()))
    lines = [
        f"taken: correction {one} of study {study}"
        for study, numbers in found.linked.items()
        for one in numbers
    ]
    lines += [f"refused: object {uid}: {why}" for uid, why in found.refused.items()]
    lines.append(
        f"{number} taken, {found.known} known, {len(found.refused)} refused; "
        f"{found.own} by segmed, {found.others} of other series"
    )
    emit(asdict(found), lines, as_json=as_json)
    if found.refused:
        raise typer.Exit(DONE_WITH_FAILURES)
