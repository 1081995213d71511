"""The steps of a comparison as plain functions: flows wrap them, `segmed train` calls them.

A step leaves its results in a folder (`OUT/runs/<architecture>/fold<k>`), so that a comparison that
was stopped goes on with what is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.comparing.best_package import choose_best
from pipelines.comparing.cross_validation import join_folds
from pipelines.comparing.device_pool import DevicePool
from pipelines.comparing.jobs import Request, TrainJob
from pipelines.comparing.progress import report_kept
from pipelines.comparing.results import read_fold_result
from pipelines.comparing.rivals import judge_rivals, rivals_table
from pipelines.comparing.training_job import (
    OnEpoch,
    is_kept,
    score_held_out,
    train_network,
    unusual_settings,
)
from pipelines.tracking.runs import RunLog, comparison
from segmed.io.atomic import write_whole
from segmed.manifest import Case, Manifest, data_hash, read_manifest
from segmed.pictures.shown import as_png
from segmed.plan import Plan, read_plan
from segmed.report import write_report
from segmed.report.case_overlay import draw_overlay, overlay_of_case
from segmed.report.legends import legend_of_set
from segmed.report.model_comparison import (
    FoldResult,
    ModelComparison,
    compare_fold_results,
    comparison_record,
    report_content,
)
from segmed.training import EpochResult


def train_alone(job: TrainJob, on_epoch: OnEpoch | None = None) -> FoldResult:
    """Train and score one job under a parent run of its own."""
    manifest, plan = read_manifest(job.manifest_path), read_plan(job.plan_path)
    name = f"{job.model} fold {job.fold}"
    with (
        comparison(name, manifest, plan, folder=Path()) as parent,
        parent.child(job.model, job.fold, params=job_params(job, plan)) as log,
    ):
        return train_and_score(job, log, on_epoch)


def job_params(job: TrainJob, plan: Plan) -> dict[str, Any]:
    """Parameters of a job, for tracking."""
    network = plan.networks.get(job.architecture)
    return {
        "budget_seconds": job.budget.seconds,
        "budget_epochs": job.budget.epochs,
        "seed": job.settings.seed,
        "device": job.settings.device,
        "spatial_dims": plan.spatial_dims,
        **unusual_settings(job),
        "patch_size": list(plan.patch_size),
        "spacing_mm": list(plan.preprocessing.spacing_mm),
        "batch_size": plan.recipe.batch_size,
        "optimizer": plan.recipe.optimizer,
        "loss": network.loss if network else None,
        "learning_rate": network.learning_rate if network else None,
        **{f"option.{key}": value for key, value in (network.options if network else {}).items()},
    }


def train_and_score(job: TrainJob, log: RunLog, on_epoch: OnEpoch | None = None) -> FoldResult:
    """Train one job, segment its held-out cases, score them, and track it all.

    With `settings.resume`, a job whose scores exist is not done again, as long as plan, data,
    budget and seed are what they were.
    """

    def report_epoch(result: EpochResult) -> None:
        log.epoch(result)
        if on_epoch is not None:
            on_epoch(result)

    if is_kept(job):
        report_kept(job)
    else:
        train_network(job, report_epoch)
        score_held_out(job)
    return log_fold_result(job, log)


def train_on(job: TrainJob, pool: DevicePool, log: RunLog) -> None:
    """Train one job: in this process, or in one of its own where several run side by side."""
    if is_kept(job):
        report_kept(job)
    elif pool.is_single:
        train_network(job, log.epoch)
    else:
        pool.train(job, job.settings.device, log.epoch)


def score_on(job: TrainJob, pool: DevicePool) -> None:
    """Score the held-out cases of a trained job, in the same kind of process as `train_on`."""
    if is_kept(job):
        return
    if pool.is_single:
        score_held_out(job)
    else:
        pool.score(job, job.settings.device)


def log_fold_result(job: TrainJob, log: RunLog) -> FoldResult:
    """A finished job's results, read from its folder and tracked."""
    fold_result = read_fold_result(job.run_dir)
    _log_results(fold_result, log, read_manifest(job.manifest_path))
    return fold_result


def _log_results(fold_result: FoldResult, log: RunLog, manifest: Manifest) -> None:
    training, held_out = manifest.split(fold_result.fold)
    log.dataset(manifest, data_hash(manifest, training), len(training), context="training")
    log.dataset(manifest, data_hash(manifest, held_out), len(held_out), context="validation")
    last = fold_result.history[-1]["epoch"] if fold_result.history else 0
    log.scores(fold_result.table, step=last + 1)
    log.metrics(
        {
            "cost/parameters": fold_result.parameters,
            "cost/train_seconds": fold_result.train_seconds,
            "cost/seconds_per_case": fold_result.seconds_per_case,
            "cost/peak_memory_mb": fold_result.peak_memory_mb,
        }
    )
    log.curves(fold_result.history, fold_result.architecture)
    lowest = fold_result.table.groupby("case")["dice"].mean().idxmin()
    case = next(case for case in manifest.training if case.id == lowest)
    log.picture(_overlay(fold_result, manifest, case), "lowest_dice_case.png")
    log.package(fold_result.package_dir)


def _overlay(fold_result: FoldResult, manifest: Manifest, case: Case) -> bytes:
    """Picture of one case without its id: pictures in MLflow identify no one."""
    item = overlay_of_case(
        manifest,
        case,
        fold_result.predictions[case.id],
        caption=f"held-out case of the lowest Dice, {fold_result.architecture}",
    )
    return as_png(draw_overlay(item, item.caption))


def write_record(record: Mapping[str, Any], request: Request) -> None:
    """Write `comparison.json`, whole or not at all."""
    write_whole(request.out_dir / "comparison.json", json.dumps(record, indent=2))


def log_comparison(record: Mapping[str, Any], log: RunLog) -> None:
    """Log a comparison: its page, and one bar chart for each metric."""
    for metric in ("dice", "hd95_mm"):
        means = {
            f"{metric}/{name}": entry["labels"]["mean"][metric]["mean"]
            for name, entry in record["architectures"].items()
        }
        log.metrics({name: value for name, value in means.items() if value is not None})
    log.tags({"winner": str(record["winner"])})
    log.note(note_of(record))


def note_of(record: Mapping[str, Any]) -> str:
    """Winner, means, tests and registered version of a comparison, as Markdown."""
    found = {name: entry["labels"]["mean"] for name, entry in record["architectures"].items()}
    lines = [
        f"**{record['winner']} comes first.**",
        "",
        f"| model | Dice | HD95 ({record['unit']}) | n |",
        "|:---|---:|---:|---:|",
        *(
            f"| {name} | {_shown(entry['dice'], 3)} | {_shown(entry['hd95_mm'], 2)} "
            f"| {entry['dice']['n']} |"
            for name, entry in found.items()
        ),
        "",
        *(f"- {text}" for text in (*record["warnings"], *record["sentences"])),
        *(f"- {text}" for text in record.get("best", {}).get("sentences", ())),
        *(f"- {text}" for entry in record.get("with", ()) for text in entry["sentences"]),
        *(f"- failed: {text}" for text in record["failures"]),
    ]
    if record.get("registered"):
        refused = f", {refusal(record)}" if record.get("refused") else ""
        lines += ["", f"Registered as `{record['registered']}`{refused}."]
    return "\n".join(lines)


def refusal(record: Mapping[str, Any]) -> str:
    """Reason, in words, why the registered version of a comparison has no alias."""
    return f"refused as champion and challenger: nothing was learned ({record['refused']})"


def _shown(entry: Mapping[str, Any], digits: int) -> str:
    mean = entry["mean"]
    return "not scored" if mean is None else f"{mean:.{digits}f}"


def conclude(
    fold_results: Sequence[FoldResult], request: Request, failures: Sequence[str]
) -> tuple[ModelComparison, dict[str, Any]]:
    """Compare the fold results, join folds; write `comparison.json` and `report.html`."""
    manifest = read_manifest(request.manifest_path)
    compared = compare_fold_results(fold_results, unit=legend_of_set(manifest).unit)
    record = comparison_record(compared) | {
        "failures": list(failures),
        "ensembles": join_folds(compared, request),
    }
    record["best"], tried = choose_best(compared, manifest, request)
    if request.against:
        record["with"] = judge_rivals(compared, manifest, request)
    rivals = record.get("with", [])
    write_record(record, request)
    folds = ", ".join(map(str, request.folds))
    content = report_content(
        compared,
        manifest,
        title=f"Comparison on {manifest.name}",
        subtitle=f"{', '.join(compared.tables)}; folds {folds}",
    )
    content = replace(
        content,
        sentences=[
            *record["best"]["sentences"],
            *(text for entry in rivals for text in entry["sentences"]),
            *content.sentences,
        ],
        tables=[*tried, *rivals_table(rivals)],
    )
    write_report(request.out_dir / "report.html", content)
    return compared, record
