"""`segmed accept`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.accept_pool import pool as pool_records
from pipelines.cli.arguments import (
    MaxVoxelsOption,
    allow_voxels,
    require_archive,
    require_device,
    require_file,
    require_manifest,
    require_models,
    require_out,
    require_out_file,
)
from pipelines.cli.segmenting_options import DeviceOption
from pipelines.terminal.console import DONE_WITH_FAILURES, JsonOption, counting, emit, note, table
from segmed.errors import UsageError

if TYPE_CHECKING:
    from pipelines.registry.acceptance import Accepted


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(accept)


def accept(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL|RECORD...",
            help="Model: models:/NAME@alias, models:/NAME/3 or a folder. With --pool: the records.",
        ),
    ],
    cases: Annotated[
        Path | None,
        typer.Option(metavar="LOCAL.json", help="Manifest of labelled cases of this site."),
    ] = None,
    archive: Annotated[
        Path | None,
        typer.Option(help="Output folder of an archive that the model segmented here."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the dossier.")] = Path(
        "segmed-acceptance"
    ),
    criteria: Annotated[
        Path | None, typer.Option(help="YAML of criteria and stop rules; see docs/accept.md.")
    ] = None,
    fold: Annotated[
        int | None, typer.Option(min=0, help="Score only the cases of this fold of LOCAL.json.")
    ] = None,
    device: DeviceOption = "auto",
    keep: Annotated[
        bool,
        typer.Option("--keep/--no-keep", help="Keep the dossier with the version in MLflow."),
    ] = True,
    monthly: Annotated[
        bool,
        typer.Option(
            "--monthly", help="Judge by the archive's results that reviewers accepted or corrected."
        ),
    ] = False,
    month: Annotated[
        str | None,
        typer.Option(metavar="2026-11", help="With --monthly: this month, not the last 31 days."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Model to compare with in the evidence, such as the champion."
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a signed record of scores without names."),
    ] = None,
    study_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Key to hash the cases with, shared by all sites of a study."
        ),
    ] = None,
    site_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Key of this site to sign its records with.")
    ] = None,
    pool: Annotated[
        bool, typer.Option("--pool", help="Combine the records of several sites for the gate.")
    ] = False,
    of_model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="MODEL", help="With --pool: model that the records must be of."
        ),
    ] = None,
    sites: Annotated[
        Path | None, typer.Option(help="With --pool: list of the sites whose records are accepted.")
    ] = None,
    rules: Annotated[Path | None, typer.Option(help="With --pool: YAML rules of the gate.")] = None,
    max_voxels: MaxVoxelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Dossier of a model at this site, before it goes live; status 1 where it is not accepted.

    Local scores beside those of the card, groups by scanner, protocol, age and sex, refusals,
    drift, cost, the worst cases, and a verdict. Page and record contain numbers instead of case
    names; the folder `private` beside them, readable to its owner alone, has `cases.csv`, which
    maps the numbers to cases, and the label maps, named after them. --monthly judges by
    the results that reviewers of the archive accepted or corrected. --export writes evidence for
    other sites, a signed record of scores; --pool combines such records.

    Example: segmed accept models:/hippocampus@challenger --cases local.json
    """
    allow_voxels(max_voxels)
    if pool:
        _require_none({"--cases": cases, "--export": export, "--against": against}, "--pool")
        pool_records(models, model=of_model, sites=sites, rules=rules, as_json=as_json)
        return
    _require_none({"--model": of_model, "--sites": sites, "--rules": rules}, "a dossier")
    if monthly:
        beside = {"--cases": cases, "--export": export, "--against": against, "--fold": fold}
        _require_none(beside, "--monthly")
        accept_month(
            models, archive, out, month=month, criteria=criteria, keep=keep, as_json=as_json
        )
        return
    _require_none({"--month": month}, "a dossier of --cases")
    require_device(device)
    if len(models) > 1:
        raise UsageError(f"one model is judged at a time, got {len(models)}: {', '.join(models)}")
    if cases is None:
        raise UsageError("give --cases LOCAL.json, a manifest of labelled cases of this site")
    require_manifest(cases)
    require_file(criteria, "--criteria")
    if archive is not None:
        require_archive(archive)
    require_out(out)
    if export is not None:
        require_out_file(export, "evidence.json", "--export")
    if against is not None and export is None:
        raise UsageError("--against is for the evidence: give --export FILE, too")
    require_models([*models, *([against] if against else [])])
    from pipelines.registry.acceptance import AcceptJob, accept_site

    job = AcceptJob(
        model=models[0],
        cases=cases,
        out_dir=out,
        archive=archive,
        criteria=criteria,
        fold=fold,
        device=device,
        keeps=keep,
        against=against,
        export=export,
        study_key=study_key,
        site_key=site_key,
    )
    is_new = export is not None and not job.study_key_path.exists()
    with counting("scored") as count:
        found = accept_site(job, count)
    if is_new:
        note(
            f"segmed: a new study key was drawn, {job.study_key_path}: all sites whose records are "
            "pooled need the same one"
        )
    report(found, as_json=as_json)


def accept_month(
    models: Sequence[str],
    archive: Path | None,
    out: Path,
    *,
    month: str | None,
    criteria: Path | None,
    keep: bool,
    as_json: bool,
) -> None:
    """Write the dossier of a month and print it."""
    if archive is None:
        raise UsageError("--monthly needs --archive OUT, the output folder of an archive run")
    require_archive(archive)
    require_file(criteria, "--criteria")
    require_out(out)
    require_models(models)
    from pipelines.registry.monthly import MonthlyJob
    from pipelines.registry.monthly import accept_month as judge

    job = MonthlyJob(tuple(models), archive, out, month=month, criteria=criteria, keeps=keep)
    report(judge(job), as_json=as_json)


def _require_none(options: Mapping[str, object], beside: str) -> None:
    """Refuse options that have no meaning here.

    Raises:
        UsageError: One is given.
    """
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name} has no meaning for {beside}: leave it out")


def report(found: Accepted, *, as_json: bool) -> None:
    """Print a dossier; status 1 where the model is not accepted."""
    dossier = found.dossier
    rows = [
        {
            "": "pass" if line.is_fulfilled else "FAIL",
            "criterion": line.measure,
            "structure": line.of,
            "value": line.found,
            "needed": line.needed,
        }
        for line in dossier.accept
    ]
    lines = [*table(rows, list(rows[0])), *dossier.findings, *dossier.unjudged]
    lines.append(dossier.bound.sentence)
    lines += [f"nothing was learned: {dossier.doubt}"] if dossier.doubt else []
    lines += [f"stop rule crossed: {line.sentence}" for line in dossier.stopped_by]
    lines += [
        f"dossier: {found.page}",
        f"record: {found.record}",
        f"names of the cases, not to be passed on: {found.names.parent}",
    ]
    if found.kept is not None:
        lines.append(f"kept with the version: {found.kept}")
    if found.exported is not None:
        lines.append(f"evidence of site {found.site}: {found.exported}")
    lines.append("accepted" if dossier.is_accepted else "not accepted")
    record = {**dossier.record(), "page": str(found.page), "kept": found.kept}
    record |= {"evidence": found.exported and str(found.exported), "site": found.site}
    record |= {"private": str(found.names.parent)}
    emit(record, lines, as_json=as_json)
    if not dossier.is_accepted:
        raise typer.Exit(DONE_WITH_FAILURES)
