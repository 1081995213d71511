"""`segmed model calibrate`: predicted quality of a model, fitted on labelled cases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.arguments import (
    PromiseOption,
    promised,
    require_device,
    require_manifest,
    require_models,
)
from pipelines.cli.faster import AliasOption, OutOption, ReferenceArgument
from pipelines.terminal.console import JsonOption, counting, emit


def calibrate(
    reference: ReferenceArgument,
    cases: Annotated[
        Path,
        typer.Option(
            "--cases",
            metavar="LOCAL.json",
            help="Manifest of labelled cases that the model was not trained on.",
        ),
    ],
    test: Annotated[
        bool, typer.Option("--test", help="Use only the manifest's test cases.")
    ] = False,
    promise: PromiseOption = None,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or cuda:N.")] = "auto",
    out: OutOption = None,
    alias: AliasOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit the predicted quality of a model on cases that it has not seen, and test its promise.

    For ensembles, where it uses how far all networks agree (pairwise Dice), and for imported and
    joined models, which have no predicted quality before. Half of the patients fit the prediction,
    half calibrate intervals and promise: 18 patients give intervals of 90 %. A package folder is
    replaced; of a registered model a new version is registered. The int8 network of an ensemble is
    left out.

    Example: segmed model calibrate models:/hippocampus@champion --cases local.json
    """
    require_models([reference])
    require_manifest(cases)
    require_device(device)
    target = promised(promise)
    from pipelines.registry.calibrating import CalibrationJob, calibrate_model
    from pipelines.registry.faster import Place

    job = CalibrationJob(Place(reference, out, alias), cases, target, test, device)
    with counting("scored") as count:
        record = calibrate_model(job, count)
    lines = [f"predicted quality: {record['sentence']}"]
    if record["lost_int8"]:
        lines.append("the int8 network is left out: it does not show how far its members agree")
    lines.append(f"{record['model']} {record['hash'][:12]}")
    emit(record, lines, as_json=as_json)
