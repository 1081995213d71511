"""`segmed train`, `segmed compare` and `segmed evaluate`."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.arguments import (
    MaxVoxelsOption,
    allow_voxels,
    require_device,
    require_file,
    require_folder,
    require_manifest,
    require_out,
)
from pipelines.cli.data import ManifestArgument
from pipelines.terminal.console import (
    DONE_WITH_FAILURES,
    JsonOption,
    continued_by,
    counting,
    emit,
    program,
    table,
)
from segmed.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.comparing.jobs import TrainJob
    from segmed.pictures.legend import Legend
    from segmed.structures import LabelClass
    from segmed.training import Budget

PlanOption = Annotated[
    Path | None, typer.Option("--plan", help="A plan; made from data and budget if left out.")
]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        help="Time, such as 90s, 10m or 1h30m; 10m-cpu: CPU time of training alone, to compare."
    ),
]
EpochsOption = Annotated[int | None, typer.Option(min=1, help="Epochs, instead of a time.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
SeedOption = Annotated[int, typer.Option(help="Seed of weights, patches and augmentation.")]
SizeOption = Annotated[
    str | None,
    typer.Option(
        help="Networks of the plan: small, full or residual (residual encoders, for long trainings "
        "on a GPU); full where the device is a GPU, else small."
    ),
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue where it was stopped.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder for everything.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(train)
    app.command()(compare)
    app.command()(evaluate)


def train(
    manifest_path: ManifestArgument,
    model: Annotated[str, typer.Option(help="Architecture, such as unet or unet3plus.")],
    fold: Annotated[int, typer.Option(min=0, help="Fold that is held out.")] = 0,
    plan: PlanOption = None,
    size: SizeOption = None,
    budget: BudgetOption = None,
    epochs: EpochsOption = None,
    resume: ResumeOption = False,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    weights: Annotated[
        Path | None, typer.Option(help="Pretrained weights to start from: .pth or .safetensors.")
    ] = None,
    patience: Annotated[
        int,
        typer.Option(min=0, help="Stop after this many epochs without a better Dice; 0: never."),
    ] = 0,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same bits each time; slower on a GPU.")
    ] = False,
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Compile the network first: minutes, for long GPU runs."),
    ] = False,
    out: OutOption = Path("segmed-runs"),
    max_voxels: MaxVoxelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train one architecture on one fold, score the held-out cases, track it in MLflow.

    Example: segmed train hippocampus.json --model unet3plus --fold 0 --budget 10m
    """
    from pipelines.comparing.jobs import TrainJob, check_job, require_size, settle_plan
    from pipelines.comparing.resources import resources_for
    from segmed.training import Settings

    allow_voxels(max_voxels)
    require_manifest(manifest_path)
    require_file(plan, "--plan")
    require_device(device)
    require_out(out)
    require_size(size, device, plan)
    time = _budget(budget, epochs)
    job = TrainJob(
        manifest_path=manifest_path,
        plan_path=plan or out / "plan.yaml",
        architecture=model,
        fold=fold,
        budget=time,
        out_dir=out,
        settings=Settings(
            device=device,
            seed=seed,
            resume=resume,
            weights=weights,
            patience=patience,
            deterministic=deterministic,
            compile=compiled,
        ),
    )
    check_job(job)
    resources = resources_for(time, device)
    plan_path = settle_plan(manifest_path, plan, out, size=size, resources=resources, device=device)
    job = replace(job, plan_path=plan_path)
    from pipelines.comparing import steps
    from pipelines.terminal.display import shown_trainings
    from segmed.metrics.learned import doubt_of_learning

    if int(os.environ.get("RANK", "0")) > 0:
        _train_along(job)
        return
    with continued_by("--resume"), shown_trainings():
        fold_result = steps.train_alone(job)
    mean, doubt = float(fold_result.table["dice"].mean()), doubt_of_learning(fold_result.table)
    emit(
        {
            "architecture": model,
            "fold": fold,
            "package": str(fold_result.package_dir),
            "dice": mean,
            "nothing_learned": doubt,
            "seconds": fold_result.train_seconds,
            "scores": fold_result.table.to_dict("records"),
        },
        [
            f"held-out Dice {mean:.3f} over {fold_result.table['case'].nunique()} cases",
            *([f"warning: nothing was learned: {doubt}; train longer (--budget)"] if doubt else []),
            f"package: {fold_result.package_dir}",
            f"next: {program()} predict IMAGE -o out --model "
            f"{shlex.quote(str(fold_result.package_dir))}",
        ],
        as_json=as_json,
    )


def _train_along(job: TrainJob) -> None:
    """The part of every process of `torchrun` but the first, which tracks, scores and prints.

    Where scores of this job exist, the first process does not train and does not wait.
    """
    from pipelines.comparing.training_job import epochs_of, is_done

    if job.settings.resume and is_done(job):
        return
    for _ in epochs_of(job):
        pass


def compare(
    manifest_path: ManifestArgument,
    models: Annotated[str, typer.Option(help="Comma-separated names, or all.")] = "all",
    folds: Annotated[str, typer.Option(help="Comma-separated numbers, or all.")] = "all",
    plan: PlanOption = None,
    size: SizeOption = None,
    budget: Annotated[str | None, typer.Option(help="Time for all trainings together.")] = None,
    epochs: EpochsOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", hidden=True, help="The default; kept for older scripts.")
    ] = False,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Train all anew, instead of going on with what is in OUT."),
    ] = False,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    side_by_side: Annotated[
        int,
        typer.Option(
            min=0,
            help="Trainings at once, each in a process: on a GPU of its own, or on a part "
            "of the cores; 0: one a GPU.",
        ),
    ] = 1,
    register: Annotated[
        str | None, typer.Option(metavar="NAME", help="Register the winner under this name.")
    ] = None,
    out: OutOption = Path("segmed-comparison"),
    max_voxels: MaxVoxelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train several architectures on the same folds and compare them case by case.

    With several folds (--models unet --folds all is a cross-validation of one) OUT/out_of_fold
    contains every case as segmented by the network not trained on it, and OUT/ensembles one
    package a model that averages its folds; that of the winner is registered: as champion if the
    model has none, else as challenger; without an alias, and with status 1, where nothing was
    learned.

    Repeated in its folder it goes on where it was stopped: what is trained and scored stays.

    Example: segmed compare hippocampus.json --models unet,unetpp --folds 0 --budget 20m
    """
    from pipelines.comparing.jobs import Request, require_enough_time
    from segmed.training import Settings

    allow_voxels(max_voxels)
    if fresh and resume:
        raise UsageError("--fresh starts anew, --resume goes on: give one of them")
    require_manifest(manifest_path)
    require_file(plan, "--plan")
    require_device(device)
    require_out(out)
    request = Request.parse(
        manifest_path,
        models=models,
        folds=folds,
        plan=plan,
        budget=_budget(budget, epochs),
        settings=Settings(device=device, seed=seed, resume=not fresh),
        register=register,
        out_dir=out,
    )
    request = replace(request.of_size(size), side_by_side=side_by_side)
    require_enough_time(request, parallel=side_by_side)
    from pipelines.comparing.steps import refusal
    from pipelines.flows.compare import with_device_pool
    from pipelines.flows.runner import run_flow
    from pipelines.terminal.display import shown_trainings

    with continued_by(without=("--fresh",)), shown_trainings():
        record = run_flow(with_device_pool(request), request)
    rows = [
        {
            "model": name,
            "parameters": entry["parameters"],
            "seconds": entry["seconds"],
            **{key: entry["labels"]["mean"][key]["mean"] for key in ("dice", "iou")},
            f"hd95_{record['unit']}": entry["labels"]["mean"]["hd95_mm"]["mean"],
        }
        for name, entry in record["architectures"].items()
    ]
    lines = table(rows, list(rows[0]))
    lines += [*[f"warning: {text}" for text in record["warnings"]], *record["sentences"]]
    lines += [f"failed: {failure}" for failure in record["failures"]]
    lines.append(f"report: {out / 'report.html'}")
    if record.get("registered"):
        refused = f", {refusal(record)}" if record["refused"] else ""
        lines.append(f"registered: {record['registered']}{refused}")
    emit(record, lines, as_json=as_json)
    if record["failures"] or record.get("refused"):
        raise typer.Exit(DONE_WITH_FAILURES)


def evaluate(
    predictions: Annotated[
        Path,
        typer.Option(help="Folder of label maps to score, or output folder of an archive run."),
    ],
    references: Annotated[Path, typer.Option(help="Folder of reference label maps.")],
    out: OutOption,
    labels: Annotated[
        Path | None, typer.Option(help="JSON of names and values; values found if left out.")
    ] = None,
    tolerance_mm: Annotated[float, typer.Option(min=0.0, help="Tolerance of NSD, in mm.")] = 1.0,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images: the report shows the worst cases.")
    ] = None,
    max_voxels: MaxVoxelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score label maps against references of the same name; distances in mm.

    Example: segmed evaluate --predictions out --references labelsTs -o scores
    """
    allow_voxels(max_voxels)
    require_folder(predictions, "the folder of label maps to score")
    require_folder(references, "the folder of reference label maps")
    require_file(labels, "--labels")
    if images is not None:
        require_folder(images, "the folder of the images")
    from pipelines.comparing.case_pictures import images_of, lowest_overlays
    from pipelines.comparing.jobs import labels_of, manifest_of
    from segmed.archive.index import ensure_index
    from segmed.evaluation import compare_folders
    from segmed.metrics import summarise, write_table
    from segmed.metrics.label_pairs import label_files, passed_over, stray_lines
    from segmed.report import ReportContent, write_report

    ensure_index(predictions)
    named = labels_of(labels, references)
    shown = images_of(images, sorted(label_files(references))) if images else {}
    with counting("scored") as count:
        scored = compare_folders(
            predictions,
            references,
            labels=named,
            manifest=manifest_of(labels),
            tolerance_mm=tolerance_mm,
            progress=count,
        )
    scores, odd = scored.table, stray_lines(scored.strays)
    if beside := passed_over(references):
        names = ", ".join(path.name for path in beside[:3]) + (", ..." if len(beside) > 3 else "")
        odd.append(f"passed over: {len(beside)} files beside the references ({names})")
    summary = summarise(scores)
    out.mkdir(parents=True, exist_ok=True)
    write_table(scores, out / "scores.csv")
    write_table(summary, out / "summary.csv")
    overlays = lowest_overlays(
        scores,
        images=shown,
        predictions=predictions,
        references=references,
        labels=named,
        manifest=manifest_of(labels),
    )
    content = ReportContent(
        title="Evaluation",
        warnings=odd,
        scores={predictions.name: scores},
        overlays=overlays if images else (),
        legend=_legend(named, references),
    )
    write_report(out / "report.html", content)
    printed = summary[summary["metric"].isin(["dice", "iou", "f1", "hd_mm", "hd95_mm"])]
    rows = [{str(key): value for key, value in row.items()} for row in printed.to_dict("records")]
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
    record = {
        "summary": summary.to_dict("records"),
        "strays": [asdict(stray) for stray in scored.strays],
    }
    emit(record, [*table(rows, columns), *odd], as_json=as_json)


def _legend(labels: Sequence[LabelClass], references: Path) -> Legend:
    """Names of the structures, and pixels where the references are raster images."""
    from segmed.io.stack import states_spacing
    from segmed.metrics.label_pairs import label_files
    from segmed.pictures.legend import Legend

    is_in_mm = all(map(states_spacing, label_files(references).values()))
    return Legend({label.value: label.name for label in labels}, "mm" if is_in_mm else "px")


def _budget(budget: str | None, epochs: int | None) -> Budget:
    from segmed.training import Budget

    if budget is not None and epochs is None:
        return Budget.parse(budget)
    return Budget(epochs=epochs) if budget is None else Budget(seconds=1.0, epochs=epochs)
