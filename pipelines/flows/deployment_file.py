"""The content of `prefect.yaml`, from the deployments that `segmed serve` makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from pipelines.flows.schedules import Schedules, deployments
from pipelines.flows.weekly import WeeklyJob
from pipelines.registry.monthly import MonthlyJob
from pipelines.runs.archiving import ArchiveJob

HEAD = """\
# Deployments for a process work pool named `segmed`, for a file of your own:
#   prefect work-pool create segmed --type process
#   prefect --no-prompt deploy --all --prefect-file pipelines/prefect.yaml
# `segmed serve --work-pool segmed ...` makes the same ones from its options, and the server's
# automations besides. One run at a time of each; a machine's GPU is kept by a limit with a lease.
# Made by `python docs/make_reference.py`; edit a copy.
"""

EXAMPLE = Schedules(
    ArchiveJob("archive", ("models:/hippocampus@champion",), Path("segmentations")),
    WeeklyJob(
        Path("data_manifests/hippocampus_sample.json"), "hippocampus", Path("weekly-comparison")
    ),
    MonthlyJob(
        ("models:/hippocampus@champion",), Path("segmentations"), Path("monthly-acceptance")
    ),
    work_pool="segmed",
)


def deployment_file(schedules: Schedules = EXAMPLE) -> str:
    """Deployments as YAML for `prefect deploy`; none of its steps pulls code."""
    content = {
        "name": "segmed",
        "pull": [],
        "deployments": [_entry(entry) for entry in deployments(schedules)],
    }
    return HEAD + yaml.safe_dump(content, sort_keys=False)


def _entry(entry: Any) -> dict[str, Any]:
    content = {
        "name": entry.name,
        "entrypoint": entry.entrypoint,
        "tags": list(entry.tags),
        "schedules": [
            {"cron": each.schedule.cron, "timezone": "UTC", "active": True}
            for each in entry.schedules
        ],
        "parameters": json.loads(json.dumps(entry.parameters)),  # no YAML aliases
        "concurrency_limit": entry.concurrency_limit,
        "work_pool": {"name": entry.work_pool_name, "job_variables": entry.job_variables},
    }
    return content | ({"triggers": [_continued(entry.name)]} if entry.schedules else {})


def _continued(name: str) -> dict[str, Any]:
    """Start a scheduled run once more that is marked as crashed."""
    scheduled = "prefect.tag.auto-scheduled"
    return {
        "name": f"segmed {name} continues a crashed run",
        "type": "event",
        "enabled": True,
        "posture": "Reactive",
        "match": {"prefect.resource.id": "prefect.flow-run.*"},
        "match_related": [
            {"prefect.resource.role": "flow", "prefect.resource.name": name},
            {"prefect.resource.role": "tag", "prefect.resource.id": scheduled},
        ],
        "expect": ["prefect.flow-run.Crashed"],
        "threshold": 1,
        "within": 0,
    }
