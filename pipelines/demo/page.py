"""The demo's page: the comparison, and how each study of the archive ended."""

from __future__ import annotations

import json
from pathlib import Path

from pipelines.comparing.jobs import Request
from pipelines.comparing.training_job import read_contestant
from segmed.comparison import hold_contest, report_content
from segmed.manifest import data_hash, read_manifest
from segmed.plan import plan_hash, read_plan
from segmed.report import ArchiveItem, write_report
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
    contest = hold_contest(
        [read_contestant(job.run_dir) for job in request.jobs(request.plan_path)]
    )
    inside, held_out = manifest.split(request.folds[0])
    budget = request.budget
    each = (
        f"{budget.seconds / len(request.architectures):.0f} s each"
        if budget.seconds
        else f"{budget.epochs} epochs each"
    )
    content = report_content(
        contest,
        manifest,
        title="segmed demo: five architectures on the hippocampus",
        subtitle=(
            f"Trained on {len(inside)} cases for {each}, scored on {len(held_out)} held-out cases; "
            f"then {contest.winner} segmented an archive of studies that no training had seen."
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
    return write_report(out_dir / "report.html", content)


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
