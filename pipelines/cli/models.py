"""`segmed model ...`: registered models, from list and show to promotion, export and import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.arguments import (
    PromiseOption,
    promised,
    require_any,
    require_file,
    require_known,
    require_manifest,
    require_models,
)
from pipelines.cli.calibrate import calibrate
from pipelines.cli.faster import lines_of, quantise, request_of, windows
from pipelines.cli.join_models import join
from pipelines.cli.nnunet import import_nnunet
from pipelines.terminal.console import DONE_WITH_FAILURES, JsonOption, emit, note, say, table

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Registered model.")]
ReferenceArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Model: models:/NAME@alias, models:/NAME/3, folder or zip."
    ),
]


EXPORT_FORMATS = ("zip", "onnx", "openvino", "bundle")
"""Forms that `segmed model export` writes; each has its writer in `pipelines.registry.exports`."""

IMPORT_FORMATS = ("export", "monai-bundle")
"""Forms that `segmed model import` reads: those of export, and bundles of others."""

LONG_FACTS = ("training_distributions", "shape_ranges", "curves", "predicted_quality")
"""Tables in a package's provenance that are too long for a line."""


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    group = typer.Typer(no_args_is_help=True, help="Registered models: list, promote, roll back.")
    group.command("list")(list_)
    group.command("show")(show)
    group.command("card")(card)
    group.command("register")(register)
    group.command("windows")(windows)
    group.command("quantise")(quantise)
    group.command("calibrate")(calibrate)
    group.command("promote")(promote)
    group.command("rollback")(rollback)
    group.command("export")(export)
    group.command("import")(import_)
    group.command("import-nnunet")(import_nnunet)
    group.command("join")(join)
    group.command("sync")(sync)
    group.command("describe")(describe)
    app.add_typer(group, name="model")


def list_(as_json: JsonOption = False) -> None:
    """Every registered model and version.

    Example: segmed model list
    """
    from pipelines.registry.loading import every_version
    from pipelines.tracking.address import tracking_uri, without_password
    from pipelines.tracking.tags import DICE_TAG

    rows = [
        {
            "name": entry.name,
            "version": entry.version,
            "aliases": list(entry.aliases),
            "architecture": entry.tags.get("segmed.architecture", ""),
            "dice": entry.tags.get(DICE_TAG, ""),
            "registered": entry.registered,
            "decision": entry.tags.get("segmed.decision", "").partition(" ")[0],
            "hash": entry.hash[:12],
        }
        for entry in every_version()
    ]
    nothing = [
        f"no model is registered in {without_password(tracking_uri(Path()))}: "
        "segmed compare M.json --register NAME, or segmed model register"
    ]
    emit(rows, table(rows, list(rows[0])) if rows else nothing, as_json=as_json)


def show(reference: ReferenceArgument, as_json: JsonOption = False) -> None:
    """Show architecture, labels, provenance and hash of a model.

    Example: segmed model show models:/hippocampus@champion
    """
    from pipelines.registry.loading import look_up
    from pipelines.tracking.tags import HELD_OUT
    from segmed.quality.package_form import quality_model_in
    from segmed.quality.statements import model_in_words

    resolved, package, (plan, *further) = look_up(reference)
    quality = quality_model_in(package.provenance)
    facts = {
        **resolved.record(),
        "architecture": package.architecture,
        "spatial_dims": plan.spatial_dims,
        "plans": [
            {
                "spatial_dims": one.spatial_dims,
                "spacing_mm": list(one.preprocessing.spacing_mm),
                "patch_size": list(one.patch_size),
            }
            for one in (plan, *further)
        ],
        "members": package.members,
        "is_cascade": plan.refines,
        "labels": {label.name: label.value for label in plan.labels},
        "channels": [channel.name for channel in plan.channels],
        "spacing_mm": list(plan.preprocessing.spacing_mm),
        "path": str(resolved.path),
        "int8": None if package.int8 is None else package.int8.model_dump(mode="json"),
        "predicted_quality": None if quality is None else model_in_words(quality),
        "provenance": {
            key: value for key, value in package.provenance.items() if key not in LONG_FACTS
        },
    }
    emit(facts, _facts(facts, package.provenance.get(HELD_OUT)), as_json=as_json)


def _facts(facts: Mapping[str, Any], scores: Mapping[str, Any] | None) -> list[str]:
    """Format the facts of a model, one a line."""
    from pipelines.registry.faster_words import in_words

    made = facts["provenance"]
    version = f"version {facts['version']}" if facts["version"] else ""
    steps = f"{made['steps']} steps" if "steps" in made else ""
    fold = f"fold {made['fold']} held out" if "fold" in made else ""
    averaged = f"the mean of {facts['members']}" if facts["members"] > 1 else ""
    if facts["is_cascade"]:
        averaged = f"a cascade of two stages, {facts['members']} networks"
    dimensions = " and ".join(dict.fromkeys(f"{one['spatial_dims']}D" for one in facts["plans"]))
    spacings = [
        " x ".join(f"{edge:g}" for edge in one["spacing_mm"]) + " mm" for one in facts["plans"]
    ]
    mean = (scores or {}).get("structures", {}).get("mean", {})
    rows = {
        "model": _joined(facts["model"], version),
        "hash": facts["hash"],
        "network": _joined(facts["architecture"], dimensions, averaged),
        "predicted quality": facts["predicted_quality"] or "",
        "labels": ", ".join(f"{value} {name}" for name, value in facts["labels"].items()),
        "channels": ", ".join(facts["channels"]),
        "spacing": " and ".join(spacings),
        "trained on": _joined(made.get("data"), fold, steps, made.get("created")),
        "data hash": made.get("data_hash"),
        "licence": made.get("data_licence"),
        "commit": made.get("commit"),
        "int8": in_words(facts["int8"]),
        "held out": _joined(
            *(
                f"{title} {mean[name]['mean']:.3g}{unit}"
                for name, title, unit in (("dice", "Dice", ""), ("hd95_mm", "HD95", " mm"))
                if mean.get(name, {}).get("mean") is not None
            ),
            f"{scores['cases']} cases" if scores else "no scores kept",
        ),
        "path": facts["path"],
    }
    width = max(map(len, rows)) + 2
    return [f"{name:<{width}}{value}" for name, value in rows.items() if value]


def _joined(*parts: Any) -> str:
    return ", ".join(str(part) for part in parts if part)


def card(reference: ReferenceArgument) -> None:
    """The model card, as Markdown.

    Example: segmed model card models:/hippocampus@champion
    """
    require_models([reference])
    from pipelines.registry.card import card_of
    from pipelines.registry.loading import resolve_model
    from pipelines.registry.reference import is_registered, parse_reference
    from pipelines.registry.versions import Registry

    if is_registered(reference):
        name, selector = parse_reference(reference)
        text = Registry().version(name, selector).description
        if text:
            say(text)
            return
    say(card_of(resolve_model(reference).load()))


def register(
    package: Annotated[Path, typer.Argument(metavar="PACKAGE", help="Package: folder or zip.")],
    name: Annotated[str, typer.Option(help="Name of the model.")],
    alias: Annotated[str | None, typer.Option(help="Alias, such as challenger.")] = None,
    quantise_on: Annotated[
        Path | None,
        typer.Option(
            "--quantise",
            metavar="M.json",
            help="Add an int8 network first, measured on the held-out cases of this manifest; see "
            "`segmed model quantise`. If it is refused, float32 is registered, with status 1.",
        ),
    ] = None,
    promise: PromiseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register a package as a new version of a model.

    Example: segmed model register segmed-runs/runs/unet3plus/fold0/package --name hippocampus
    """
    require_models([str(package)])
    target = None if promise is None else promised(promise)
    if quantise_on is not None:
        require_manifest(quantise_on)
    from pipelines.registry.registration import promising

    with promising(package, target) as path:
        if quantise_on is not None:
            _register_quantised(path, name, alias, quantise_on, as_json=as_json)
            return
        from pipelines.registry.registration import register_package

        version = register_package(path, name, alias)
    emit(asdict(version), [f"{version.reference} {' '.join(version.aliases)}"], as_json=as_json)


def _register_quantised(
    package: Path, name: str, alias: str | None, manifest: Path, *, as_json: bool
) -> None:
    request = request_of(manifest, fold=None, test=False)
    from pipelines.registry.faster import register_quantised

    version, result = register_quantised(package, name, alias, manifest, request, report=note)
    record = result.record()
    lines = [*lines_of(record), f"{version.reference} {' '.join(version.aliases)}"]
    emit({**asdict(version), "int8": record}, lines, as_json=as_json)
    if not record["accepted"]:
        raise typer.Exit(DONE_WITH_FAILURES)


def promote(
    reference: Annotated[
        str,
        typer.Argument(metavar="NAME@challenger", help="Version to promote."),
    ],
    manifest: Annotated[
        Path | None, typer.Option(help="Frozen evaluation set: the test cases of this manifest.")
    ] = None,
    rules: Annotated[Path | None, typer.Option(help="YAML rules of the gate.")] = None,
    force: Annotated[
        str | None,
        typer.Option(
            metavar="REASON",
            help="Promote although the gate refuses, for this reason, which is recorded.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a version champion if it is no worse, case by case; status 1 where it is refused.

    Example: segmed model promote hippocampus@challenger --manifest hippocampus.json
    """
    if manifest is not None:
        require_manifest(manifest)
    require_file(rules, "--rules")
    from pipelines.registry.promotion import promote as run_gate

    decision = run_gate(reference, manifest=manifest, rules=rules, force=force)
    emit(decision.record(), decision.lines(), as_json=as_json)
    if not decision.promoted:
        raise typer.Exit(DONE_WITH_FAILURES)


def rollback(name: NameArgument, as_json: JsonOption = False) -> None:
    """Make the previous champion champion again; the two change places.

    Example: segmed model rollback hippocampus
    """
    from pipelines.registry.reference import PREVIOUS, ModelName

    require_models([str(ModelName(name, PREVIOUS))])
    from pipelines.registry.versions import Registry

    version = Registry().rollback(name)
    line = f"champion of {name} is version {version.version} again ({version.hash[:12]})"
    emit(asdict(version), [line], as_json=as_json)


def export(
    reference: ReferenceArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="File or folder to write.")],
    form: Annotated[
        str, typer.Option("--format", help="Form of the export: zip, onnx, openvino or bundle.")
    ] = "zip",
    as_json: JsonOption = False,
) -> None:
    """Write a model to carry elsewhere, with its hash beside it.

    Example: segmed model export models:/hippocampus@champion -o hippocampus.zip
    """
    require_known("format", form, EXPORT_FORMATS)
    require_models([reference])
    from pipelines.registry.exports import export_model

    record = export_model(reference, out, form)
    emit(record, [f"{record['path']}  sha256 {record['sha256']}"], as_json=as_json)


def import_(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A zip or bundle from export, or a MONAI bundle."),
    ],
    name: Annotated[str, typer.Option(help="Name of the model.")],
    sha256: Annotated[str | None, typer.Option(help="SHA-256 that the file must have.")] = None,
    alias: Annotated[str | None, typer.Option(help="Alias, such as challenger.")] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="Form of the file: `export`, or `monai-bundle` with one of MONAI's networks.",
        ),
    ] = "export",
    as_json: JsonOption = False,
) -> None:
    """Register an exported model, checked by its hash, or the model of a MONAI bundle.

    Example: segmed model import hippocampus.zip --name hippocampus --sha256 4f1c...
    """
    require_known("format", form, IMPORT_FORMATS)
    require_any([file], "the zip or bundle that `segmed model export` wrote, or a MONAI bundle")
    from pipelines.registry.exports import import_model

    version = import_model(file, name, sha256=sha256, alias=alias, form=form)
    emit(asdict(version), [f"{version.reference} {' '.join(version.aliases)}"], as_json=as_json)


def sync(as_json: JsonOption = False) -> None:
    """Deliver what runs kept while the tracking server was away.

    Example: segmed model sync
    """
    from pipelines.tracking.late_delivery import sync as deliver_kept

    records, runs = deliver_kept()
    emit({"records": records, "runs": runs}, [f"{records} records of {runs} runs"], as_json=as_json)


def describe(
    model: Annotated[
        str,
        typer.Argument(
            metavar="ARCHITECTURE", help="Architecture, such as unet3plus; not with --all."
        ),
    ] = "",
    spatial_dims: Annotated[
        int, typer.Option(min=2, max=3, help="Spatial dimensions: 2 or 3.")
    ] = 3,
    preset: Annotated[
        str | None,
        typer.Option(help="`paper` for the paper's form. Default: the planned form."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Print the table of all architectures, as Markdown.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Describe an architecture: paper, parameters, operations, memory, levels.

    Example: segmed model describe unet3plus --preset paper
    """
    from segmed.models import list_models

    if not every:
        require_known("model", model, list_models())
    from segmed.models import describe_model
    from segmed.models.table import all_cards, as_markdown

    if every:
        cards = all_cards()
        emit([asdict(card) for card in cards], as_markdown(cards).splitlines(), as_json=as_json)
        return
    found = describe_model(
        model, spatial_dims=spatial_dims, in_channels=1, num_classes=3, preset=preset
    )
    facts = asdict(found)
    emit(facts, [f"{key}: {value}" for key, value in facts.items()], as_json=as_json)
