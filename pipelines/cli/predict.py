"""`segmed predict`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.console import (
    DONE_WITH_FAILURES,
    JsonOption,
    continued_by,
    emit,
    tracked,
)

ModelOption = Annotated[
    list[str],
    typer.Option(
        "--model",
        help="Package folder or zip, models:/NAME@champion or models:/NAME/3; repeat to average.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(predict)


def predict(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help="Images, or DICOM series folders.")
    ],
    model: ModelOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the segmentations.")],
    output_format: Annotated[
        str, typer.Option("--format", help="nifti, dicom-seg or rtstruct.")
    ] = "nifti",
    engine: Annotated[str, typer.Option(help="auto, torch or openvino.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    tta: Annotated[bool, typer.Option("--tta", help="Average over mirror images.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Segment images, each on its own grid; status 1 where one was refused.

    Example: segmed predict scan.nii.gz --model models:/hippocampus@champion -o out
    """
    from pipelines.loading import load_models
    from segmed.inference import Predictor, predict_files

    resolved, packages = load_models(model)
    predictor = Predictor(packages, device=device, engine=engine, tta=tta)  # type: ignore[arg-type]
    outcomes = predict_files(predictor, inputs, out, format=output_format)  # type: ignore[arg-type]
    with continued_by():
        done = [
            asdict(outcome)
            for outcome in tracked(
                outcomes, lambda o: f"{o.status}: {o.input} {o.reason or ''}", total=len(inputs)
            )
        ]
    record = {"models": [entry.record() for entry in resolved], "outcomes": done}
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=2, default=str)
    beside = out / ".predictions.json.new"
    beside.write_text(text, encoding="utf-8")
    beside.replace(out / "predictions.json")
    bad = [entry for entry in done if entry["status"] != "done"]
    lines = [f"{len(done) - len(bad)} segmented, {len(bad)} refused, in {out}"]
    lines += [f"{entry['status']}: {entry['input']}: {entry['reason']}" for entry in bad]
    emit(record, lines, as_json=as_json)
    if bad:
        raise typer.Exit(DONE_WITH_FAILURES)
