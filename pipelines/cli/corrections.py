"""`segmed manifest add-corrections`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.arguments import require_archive, require_manifest, require_out_file
from pipelines.terminal.console import DONE_WITH_FAILURES, JsonOption, emit, note

if TYPE_CHECKING:
    from segmed.archive.review.field import FieldScore


def add_corrections(
    archive: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of the archive.")],
    manifest_path: Annotated[Path, typer.Argument(metavar="M.json", help="Manifest to add to.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write. Default: the manifest itself."),
    ] = None,
    record: Annotated[
        bool,
        typer.Option(
            "--record/--no-record",
            help="Record the Dice of the models with the corrections in MLflow.",
        ),
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Add accepted corrections of an archive to a manifest; status 1 where one does not fit.

    A patient of a test or held-out case stays there. The corrections score the model that made the
    originals: at its versions in MLflow, and on the page of the next archive run.

    Example: segmed manifest add-corrections segmentations spleen.json
    """
    require_archive(archive)
    require_manifest(manifest_path)
    if out is not None:
        require_out_file(out, "manifest.json")
    from pipelines.registry.field import field_lines
    from segmed.archive.review.archive import ReviewArchive
    from segmed.archive.review.cases import add_corrections as add
    from segmed.archive.review.field import field_scores, write_field_scores
    from segmed.manifest import read_manifest, write_manifest

    opened = ReviewArchive(archive)
    found = add(read_manifest(manifest_path), opened)
    target = out or manifest_path
    if found.added or found.updated or out is not None:
        write_manifest(found.manifest, target)
    scores = field_scores(opened)
    write_field_scores(archive, scores)
    versions = _recorded(scores) if record else {}
    lines = [f"added: {name}, {place}" for name, place in found.added.items()]
    lines += [f"updated: {name}" for name in found.updated]
    lines += [f"left out: study {study}: {why}" for study, why in found.left_out.items()]
    lines += field_lines(scores, versions)
    counts = f"{len(found.added)} added, {len(found.updated)} updated, {len(found.kept)} unchanged"
    lines.append(f"{target}: {counts}, {len(found.left_out)} left out")
    payload = {
        "manifest": str(target),
        "added": found.added,
        "updated": list(found.updated),
        "unchanged": list(found.kept),
        "left_out": found.left_out,
        "field": [{**asdict(one), "versions": versions.get(one.package, [])} for one in scores],
    }
    emit(payload, lines, as_json=as_json)
    if found.left_out:
        raise typer.Exit(DONE_WITH_FAILURES)


def _recorded(scores: list[FieldScore]) -> dict[str, list[str]]:
    """Record scores in MLflow, where there is a server or a database."""
    from pipelines.registry.embedded import registered_versions
    from pipelines.tracking.address import tracking_uri

    if not scores or registered_versions(tracking_uri(Path())) == {}:
        return {}
    from pipelines.registry.field import record_field_scores
    from pipelines.registry.versions import Registry

    found = record_field_scores(Registry(), scores)
    for package, versions in found.items():
        if not versions:
            note(f"model {package[:12]} is not registered: its score is kept in the archive alone")
    return found
