"""`segmed demo`: the whole chain on the bundled sample; no server, no network."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

from pipelines.comparing.best_package import BEST
from pipelines.comparing.jobs import Request, require_enough_time
from pipelines.comparing.resources import resources_for
from pipelines.comparing.training_job import is_done
from pipelines.demo.archive import make_archive
from pipelines.demo.page import budget_of_each, review_command, why_first, write_demo_report
from pipelines.flows.compare import compare
from pipelines.flows.runner import run_flow
from pipelines.flows.segment_archive import segment_archive
from pipelines.registry.reference import CHAMPION, ModelName
from pipelines.registry.versions import Registry
from pipelines.runs.archiving import ArchiveJob
from pipelines.terminal.console import note, plain, program, say
from pipelines.terminal.display import shown_trainings
from pipelines.tracking.database import sqlite_uri
from segmed.errors import ManifestError
from segmed.manifest import check_manifest, read_manifest
from segmed.package import ModelPackage
from segmed.plan import Plan, plan_hash, read_plan, write_plan
from segmed.plan.make import make_plan
from segmed.training import Budget, Settings, choose_device

MANIFEST = Path(__file__).resolve().parents[2] / "data_manifests" / "hippocampus_sample.json"
ARCHITECTURES = ("fcn8s", "unet", "unetpp", "unet3plus", "deeplabv3plus")
FOLD = 0
MODEL_NAME = "hippocampus"

BUDGET_SECONDS = 480.0
"""Training time of all five together."""

STEPS_PER_EPOCH = 20
"""Short epochs: their curves have some points even on a slow machine."""

QUICK_STEPS = 2
"""Steps of the single epoch of `--quick`."""


def run_demo(out_dir: Path, budget_s: float | None, quick: bool, as_json: bool) -> dict[str, Any]:
    """Check, train five architectures, compare, register, segment an archive, report.

    What an earlier call finished is kept: a second call is short, and an interrupted one continues.

    Args:
        out_dir: Folder for everything.
        budget_s: Training time of all five together, in seconds.
        quick: Two steps each, to show that all parts run.
        as_json: Print one JSON document at the end instead of lines.

    Returns:
        Where everything is, the winner and the outcomes.

    Raises:
        ManifestError: The bundled sample is damaged.
    """
    out_dir = out_dir.resolve()
    out_dir.mkdir(parents=True, exist_ok=True)
    use_embedded_tracking(out_dir)
    request = _request(out_dir, budget_s, quick)
    require_enough_time(request)
    _foretell(request, quick)
    _check_sample()
    with shown_trainings():
        record = run_flow(compare, _without_repeated_registration(request))
    source = make_archive(read_manifest(MANIFEST), out_dir / "archive_source")
    model = model_to_use(out_dir)
    note(f"archive: {source} with {model}")
    job = ArchiveJob(
        source=str(source), models=(model,), out_dir=out_dir / "archive", folder=out_dir
    )
    counts = run_flow(segment_archive, job)
    page = write_demo_report(request, out_dir)
    summary = _summary(out_dir, record, counts, page) | {"model": model}
    summary["remarks"] = [*record["warnings"], *why_first(record, budget_of_each(request))]
    if as_json:
        say(json.dumps(plain(summary), indent=2))
    else:
        for line in _lines(summary):
            say(line)
    return summary


def use_embedded_tracking(out_dir: Path) -> None:
    """Track into `out_dir/mlflow.db`, unless a server is named."""
    os.environ.setdefault("MLFLOW_TRACKING_URI", sqlite_uri(out_dir / "mlflow.db"))


def _request(out_dir: Path, budget_s: float | None, quick: bool) -> Request:
    budget = Budget(epochs=1) if quick else Budget(seconds=budget_s or BUDGET_SECONDS)
    plan_path = out_dir / "plan.yaml"
    each = (
        None
        if quick
        else replace(budget, seconds=(budget_s or BUDGET_SECONDS) / len(ARCHITECTURES))
    )
    made = make_plan(read_manifest(MANIFEST), resources=resources_for(each, "auto"))
    plan = _demo_plan(made, quick)
    if not plan_path.exists() or plan_hash(read_plan(plan_path)) != plan_hash(plan):
        write_plan(plan, plan_path)
    return Request(
        manifest_path=MANIFEST,
        architectures=ARCHITECTURES,
        folds=(FOLD,),
        plan_path=plan_path,
        budget=budget,
        out_dir=out_dir,
        register=MODEL_NAME,
        settings=Settings(resume=True, cache_dir=out_dir / "cache"),
        folder=out_dir,
        ensembles=False,  # a demo's trainings are too short to be worth a mean
    )


def _demo_plan(plan: Plan, quick: bool) -> Plan:
    """The planned recipe with short epochs."""
    steps = QUICK_STEPS if quick else STEPS_PER_EPOCH
    recipe = plan.recipe.model_copy(update={"iterations_per_epoch": steps})
    return plan.model_copy(update={"recipe": recipe})


def _foretell(request: Request, quick: bool) -> None:
    """Print the steps to come and how long they may take."""
    device = choose_device(request.settings.device)
    note(f"device: {device.why}")
    if quick:
        note(f"training {len(ARCHITECTURES)} architectures for {QUICK_STEPS} steps each")
        return
    seconds = request.budget.seconds or 0.0
    note(
        f"training {len(ARCHITECTURES)} architectures within {seconds / 60:.1f} minutes "
        f"({seconds / len(ARCHITECTURES):.0f} s each); checking, comparing and segmenting the "
        "archive take one or two minutes more; what an earlier call finished is kept"
    )


def _check_sample() -> None:
    manifest = read_manifest(MANIFEST)
    faults = [fault for fault in check_manifest(manifest) if fault.severity == "error"]
    if faults:
        first = faults[0]
        raise ManifestError(
            f"the bundled sample is damaged: {len(faults)} faults, the first in {first.case_id}: "
            f"{first.message}; install segmed again"
        )
    note(f"manifest: {len(manifest.training) + len(manifest.test)} cases, no fault")


def _without_repeated_registration(request: Request) -> Request:
    """Do not register again what an earlier call trained and registered."""
    record_path = request.out_dir / "comparison.json"
    assert request.plan_path is not None
    jobs = request.jobs(request.plan_path)
    if not record_path.exists() or not all(is_done(job) for job in jobs):
        return request
    winner = json.loads(record_path.read_text(encoding="utf-8"))["winner"]
    best = request.out_dir / BEST
    trained = next(job.run_dir for job in jobs if job.architecture == winner) / "package"
    package_dir = best if best.exists() else trained
    known = {version.hash for version in Registry(request.folder).versions(MODEL_NAME)}
    is_registered = ModelPackage.load(package_dir).hash in known
    return replace(request, register=None) if is_registered else request


def _summary(
    out_dir: Path, record: Mapping[str, Any], counts: Mapping[str, int], page: Path
) -> dict[str, Any]:
    winner = str(record["winner"])
    scores = record["architectures"]
    return {
        "winner": winner,
        "mean_dice": {
            name: entry["labels"]["mean"]["dice"]["mean"] for name, entry in scores.items()
        },
        "archive": dict(counts),
        "report": str(page),
        "comparison": str(out_dir / "comparison.json"),
        "tracking": os.environ["MLFLOW_TRACKING_URI"],
        "segmentations": str(out_dir / "archive"),
    }


def model_to_use(folder: Path) -> str:
    """Reference of the champion; of the newest version where none has learned anything."""
    versions = Registry(folder).versions(MODEL_NAME)
    if any(CHAMPION in version.aliases for version in versions):
        return str(ModelName(MODEL_NAME, CHAMPION))
    return versions[0].reference


def _lines(summary: Mapping[str, Any]) -> list[str]:
    dice = sorted(summary["mean_dice"].items(), key=lambda item: -(item[1] or 0.0))
    tracking = summary["tracking"]
    segmentations = Path(summary["segmentations"])
    role = ("champion:" if summary["model"].endswith("@champion") else "no champion:").ljust(16)
    source = segmentations.parent / "archive_source"
    return [
        "",
        "mean foreground Dice on held-out cases: "
        + ", ".join(f"{name} {value:.3f}" for name, value in dice),
        *(f"note: {remark}" for remark in summary["remarks"]),
        f"{role}{summary['winner']}, registered as {summary['model']}",
        "archive:        " + ", ".join(f"{n} {status}" for status, n in summary["archive"].items()),
        f"report:         {summary['report']}",
        f"numbers:        {summary['comparison']}",
        f"segmentations:  {segmentations} (outcomes.json says how each study ended)",
        f"runs and model: {tracking}",
        "",
        "to try next:",
        f"  {review_command(segmentations.parent)}        # look, accept, correct",
        f"  {program('mlflow')} ui --backend-store-uri {quote(tracking)}",
        f"  MLFLOW_TRACKING_URI={quote(tracking)} {program()} predict {quote(str(source))} "
        f"--model {summary['model']} -o predictions",
        f"  {program()} manifest build --help        # your own images",
    ]
