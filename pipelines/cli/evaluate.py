"""`segmed evaluate`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.arguments import MaxVoxelsOption, allow_voxels, require_file, require_folder
from pipelines.terminal.console import JsonOption, counting, emit, table


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(evaluate)


def evaluate(
    predictions: Annotated[
        Path,
        typer.Option(help="Folder of label maps to score, or output folder of an archive run."),
    ],
    references: Annotated[Path, typer.Option(help="Folder of reference label maps.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of tables and report.")],
    labels: Annotated[
        Path | None,
        typer.Option(help="JSON with name and value of each structure. Default: the values found."),
    ] = None,
    tolerance_mm: Annotated[float, typer.Option(min=0.0, help="Tolerance of NSD, in mm.")] = 1.0,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images: the report shows the worst cases.")
    ] = None,
    max_voxels: MaxVoxelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score label maps against references of the same name; distances in mm.

    Runs as a Prefect flow where PREFECT_API_URL names a server.

    Example: segmed evaluate --predictions out --references labelsTs -o scores
    """
    allow_voxels(max_voxels)
    require_folder(predictions, "the folder of label maps to score")
    require_folder(references, "the folder of reference label maps")
    require_file(labels, "--labels")
    if images is not None:
        require_folder(images, "the folder of the images")
    from pipelines.comparing.label_scores import LabelScoring, score_label_maps

    scoring = LabelScoring(predictions, references, out, labels, tolerance_mm, images)
    with counting("scored") as count:
        if os.environ.get("PREFECT_API_URL"):
            from pipelines.flows.evaluate import evaluate_labels
            from pipelines.flows.passing import Passed
            from pipelines.flows.runner import run_flow

            record = run_flow(evaluate_labels, scoring, Passed(count))
        else:  # a temporary server takes longer than many an evaluation
            record = score_label_maps(scoring, count)
    shown = {"dice", "iou", "f1", "hd_mm", "hd95_mm"}
    rows = [row for row in record["summary"] if row["metric"] in shown]
    columns = [
        "label",
        "metric",
        "mean",
        "std",
        "n",
        "n_missed",
        "n_false_positive",
        "n_both_empty",
    ]
    remarks = record.pop("remarks")
    emit(record, [*table(rows, columns), *remarks], as_json=as_json)
