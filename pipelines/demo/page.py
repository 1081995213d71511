"""The demo's page: the comparison, and how each study of the archive ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

from pipelines.comparing.jobs import Request
from pipelines.comparing.results import read_fold_result
from pipelines.terminal.console import program
from segmed.manifest import data_hash, read_manifest
from segmed.plan import plan_hash, read_plan
from segmed.report import ArchiveItem, write_report
from segmed.report.model_comparison import compare_fold_results, comparison_record, report_content
from segmed.training.finish import commit_hash, versions


def write_demo_report(request: Request, out_dir: Path) -> Path:
    """Write `report.html` over what the comparison alone wrote.

    Args:
        request: What was compared.
        out_dir: Folder of the demo.

    Returns:
        The page.
    """
    assert request.plan_path is not None
    manifest, plan = read_manifest(request.manifest_path), read_plan(request.plan_path)
    compared = compare_fold_results(
        [read_fold_result(job.run_dir) for job in request.jobs(request.plan_path)]
    )
    inside, held_out = manifest.split(request.folds[0])
    each = budget_of_each(request)
    record = comparison_record(compared)
    content = report_content(
        compared,
        manifest,
        title="segmed demo: five architectures on the hippocampus",
        subtitle=(
            f"Trained on {len(inside)} cases for {each}, scored on {len(held_out)} held-out cases; "
            f"then {compared.winner} segmented an archive of studies that no training had seen."
        ),
        archive=_archive_items(out_dir / "archive" / "outcomes.json"),
        provenance={
            "data": manifest.name,
            "licence of the images": manifest.licence,
            "data hash": data_hash(manifest, inside),
            "plan hash": plan_hash(plan),
            "commit": commit_hash(),
            **versions(),
        },
    )
    sentences = [*why_first(record, each), *content.sentences]
    ended = replace(content, sentences=sentences, next_command=review_command(out_dir))
    return write_report(out_dir / "report.html", ended)


def review_command(out_dir: Path) -> str:
    """Command that opens the archive of a demo for review."""
    return f"{program()} review {quote(str(out_dir / 'archive'))}"


def why_first(record: Mapping[str, Any], each: str) -> list[str]:
    """A sentence about the meaning of the order after a demo's short trainings."""
    steps = {name: sum(entry["steps"]) for name, entry in record["architectures"].items()}
    if len(steps) < 2:
        return []
    winner = record["winner"]
    others = ", ".join(f"{name} {count}" for name, count in steps.items() if name != winner)
    return [
        f"{winner} leads after {each}: so short a training ranks networks by how fast they learn "
        f"({winner} took {steps[winner]} steps, {others}), not by how good they become"
    ]


def budget_of_each(request: Request) -> str:
    """Time or epochs of each training, in words."""
    budget = request.budget
    if budget.seconds:
        return f"{budget.seconds / len(request.architectures):.0f} s each"
    return f"{budget.epochs} epoch{'s' if budget.epochs != 1 else ''} each"


def _archive_items(path: Path) -> list[ArchiveItem]:
    outcomes = json.loads(path.read_text(encoding="utf-8"))
    studies = outcomes["studies"] if isinstance(outcomes, dict) else outcomes
    return [
        ArchiveItem(
            study=entry["study"],
            status=entry["status"],
            reason=entry["reason"] or "",
            output=entry["output"] or "",
            seconds=entry["seconds"],
        )
        for entry in studies
    ]
