"""`segmed train` and `segmed compare`."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.arguments import (
    MaxVoxelsOption,
    PromiseOption,
    allow_voxels,
    promised,
    require_device,
    require_file,
    require_manifest,
    require_models_or_results,
    require_out,
)
from pipelines.cli.data import ManifestArgument
from pipelines.cli.segmenting_options import DeviceOption
from pipelines.terminal.console import (
    DONE_WITH_FAILURES,
    JsonOption,
    continued_by,
    emit,
    program,
    table,
)
from segmed.errors import UsageError

if TYPE_CHECKING:
    from pipelines.comparing.jobs import TrainJob
    from segmed.report.model_comparison import FoldResult
    from segmed.training import Budget

PlanOption = Annotated[
    Path | None,
    typer.Option("--plan", help="Plan of the training. Default: made from data and budget."),
]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        help="Time of the training, such as 90s, 10m or 1h30m; 10m-cpu: CPU time of the steps."
    ),
]
EpochsOption = Annotated[
    int | None, typer.Option(min=1, help="Number of epochs, instead of a time.")
]
SeedOption = Annotated[int, typer.Option(help="Seed of weights, patches and augmentation.")]
SizeOption = Annotated[
    str | None,
    typer.Option(
        help="Networks of the plan: small, full or residual (residual encoders, for long trainings "
        "on a GPU); by default full on a GPU, else small."
    ),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Continue a training that was stopped.")
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder of all results.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(train)
    app.command()(compare)


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
        Path | None,
        typer.Option(
            help="Pretrained weights to start from: .pth or .safetensors; for a U-Net also a "
            "folder, zip or fold of nnU-Net results."
        ),
    ] = None,
    patience: Annotated[
        int,
        typer.Option(min=0, help="Stop after this many epochs without a better Dice; 0: never."),
    ] = 0,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Give the same bits each time; slower on a GPU.")
    ] = False,
    compiled: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Compile the network first, which takes minutes. Default: on a GPU if it "
            "saves more.",
        ),
    ] = None,
    promise: PromiseOption = None,
    out: OutOption = Path("segmed-runs"),
    max_voxels: MaxVoxelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train one architecture on one fold, score the held-out cases, track it in MLflow.

    Runs as a Prefect flow, on the server that PREFECT_API_URL names, else on a temporary one.
    Under torchrun the processes train one network together, and no flow is run.

    Example: segmed train hippocampus.json --model unet3plus --fold 0 --budget 10m
    """
    from pipelines.comparing.jobs import TrainJob, check_job, check_start, require_size
    from pipelines.comparing.resources import resources_for
    from pipelines.comparing.settled_plan import settle_plan
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
        promise=promised(promise),
    )
    check_job(job)
    resources = resources_for(time, device)
    plan_path = settle_plan(manifest_path, plan, out, size=size, resources=resources, device=device)
    job = replace(job, plan_path=plan_path)
    check_start(job)
    if int(os.environ.get("RANK", "0")) > 0:
        _train_along(job)
        return
    from pipelines.terminal.display import shown_trainings
    from segmed.metrics.learned import doubt_of_learning

    with continued_by("--resume"), shown_trainings():
        fold_result = _trained(job)
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


def _trained(job: TrainJob) -> FoldResult:
    """The training as a Prefect flow; under `torchrun`, whose processes train together, without."""
    if _is_under_torchrun():
        from pipelines.comparing.steps import train_alone

        return train_alone(job)
    from pipelines.flows.runner import run_flow, start_server_early

    start_server_early()
    from pipelines.flows.train import train as flow

    return run_flow(flow, job)


def _is_under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("WORLD_SIZE", "1")) > 1


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
    models: Annotated[
        str, typer.Option(help="Architectures with commas between them, or all.")
    ] = "all",
    folds: Annotated[str, typer.Option(help="Folds with commas between them, or all.")] = "all",
    plan: PlanOption = None,
    size: SizeOption = None,
    dims: Annotated[
        str | None,
        typer.Option(
            help="2,3: train each model with a 2D and with a 3D plan, compare them, and try "
            "their mean. Default: decided from the images."
        ),
    ] = None,
    cascade: Annotated[
        bool,
        typer.Option(
            "--cascade",
            help="For volumes much larger than a patch: train each model on a coarse grid, then a "
            "second stage that refines its label map on the images' own grid; compare them.",
        ),
    ] = False,
    budget: Annotated[str | None, typer.Option(help="Time for all trainings together.")] = None,
    epochs: EpochsOption = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            hidden=True,
            help="No effect: comparisons continue by default. Kept for older scripts.",
        ),
    ] = False,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Start again, instead of continuing the trainings in OUT."),
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
    postprocessing: Annotated[
        bool,
        typer.Option(
            help="Try to keep the largest component, remove small ones and fill holes on the "
            "winner's held-out cases; keep in OUT/best what helps significantly."
        ),
    ] = True,
    ensembles: Annotated[
        bool,
        typer.Option(
            help="Try the winner averaged with the next two models on the held-out cases; average "
            "them in OUT/best if that is significantly better."
        ),
    ] = True,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="MODEL",
            help="Existing model, such as models:/NAME@champion, a package or a folder of nnU-Net "
            "results: the winner is compared with it case by case, by the rules of the gate; "
            "repeatable.",
        ),
    ] = None,
    register: Annotated[
        str | None, typer.Option(metavar="NAME", help="Register OUT/best under this name.")
    ] = None,
    promise: PromiseOption = None,
    out: OutOption = Path("segmed-comparison"),
    max_voxels: MaxVoxelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train several architectures on the same folds and compare them case by case.

    With several folds (--models unet --folds all is a cross-validation of one) OUT/out_of_fold
    contains every case as segmented by the network not trained on it, and OUT/ensembles one
    package a model that averages its folds. OUT/best is the package to use: the winner, averaged
    with other models and post-processed where that is significantly better on the held-out cases.
    It is registered: as champion if the model has none, else as challenger; without an alias, and
    with status 1, where nothing was learned.

    Repeated in its folder it goes on where it was stopped: what is trained and scored stays.

    With --with, OUT/best stays the winner of the trainings, and the report says whether it would
    pass the gate against the model named.

    Example: segmed compare hippocampus.json --models unet,unetpp --folds 0 --budget 20m
    """
    from pipelines.comparing.jobs import Request, require_enough_time
    from segmed.training import Settings

    allow_voxels(max_voxels)
    if fresh and resume:
        raise UsageError("--fresh starts again, --resume continues: give one of them")
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
    request = request.of_size(size).of_dims(dims).of_cascade(cascade)
    request = replace(request, side_by_side=side_by_side)
    request = replace(
        request, postprocess=postprocessing, ensembles=ensembles, against=tuple(against or ())
    )
    request = replace(request, promise=promised(promise))
    require_models_or_results(request.against)
    require_enough_time(request, parallel=side_by_side)
    with continued_by(without=("--fresh",)):
        from pipelines.flows.runner import run_flow, start_server_early

        start_server_early()
        from pipelines.comparing.steps import refusal
        from pipelines.flows.compare import compare as flow
        from pipelines.terminal.display import shown_trainings

        with shown_trainings():
            record = run_flow(flow, request)
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
    lines += [text for entry in record.get("with", ()) for text in entry["sentences"]]
    lines += [*record["best"]["sentences"], *[f"failed: {one}" for one in record["failures"]]]
    lines += [
        f"report: {out / 'report.html'}",
        f"package to use: {out / record['best']['package']}",
    ]
    if record.get("registered"):
        refused = f", {refusal(record)}" if record["refused"] else ""
        lines.append(f"registered: {record['registered']}{refused}")
    emit(record, lines, as_json=as_json)
    if record["failures"] or record.get("refused"):
        raise typer.Exit(DONE_WITH_FAILURES)


def _budget(budget: str | None, epochs: int | None) -> Budget:
    from segmed.training import Budget

    if budget is not None and epochs is None:
        return Budget.parse(budget)
    return Budget(epochs=epochs) if budget is None else Budget(seconds=1.0, epochs=epochs)
