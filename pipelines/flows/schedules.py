"""The schedules that `segmed serve` keeps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import serve

from pipelines.flows.nightly import nightly
from pipelines.flows.stale_runs import forget_stale_runs, settings_of
from pipelines.flows.weekly import weekly
from segmed.errors import UsageError


@dataclass(frozen=True)
class Schedules:
    """What runs when.

    Attributes:
        archive: Folder that is segmented every night.
        model: Model reference that it is segmented with.
        out_dir: Folder of the segmentations.
        manifest: Manifest to compare all models on every week, if any.
        nightly_cron: When the archive runs.
        weekly_cron: When the comparison runs.
        weekly_hours: Budget of the comparison.
    """

    archive: Path
    model: str
    out_dir: Path
    manifest: Path | None = None
    nightly_cron: str = "0 2 * * *"
    weekly_cron: str = "0 4 * * 0"
    weekly_hours: float = 8.0


def deployments(schedules: Schedules) -> list[Any]:
    """One deployment a schedule."""
    here = str(Path.cwd())
    parameters = {
        "source": str(schedules.archive),
        "model": schedules.model,
        "out_dir": str(schedules.out_dir),
        "folder": here,
    }
    found = [
        nightly.to_deployment(
            name="nightly", cron=schedules.nightly_cron, parameters=parameters, concurrency_limit=1
        )
    ]
    if schedules.manifest is not None:
        name = schedules.model.removeprefix("models:/").partition("@")[0].partition("/")[0]
        found.append(
            weekly.to_deployment(
                name="weekly",
                cron=schedules.weekly_cron,
                parameters={
                    "manifest": str(schedules.manifest),
                    "out_dir": str(schedules.out_dir.with_name("weekly-comparison")),
                    "hours": schedules.weekly_hours,
                    "model": name,
                    "folder": here,
                },
                concurrency_limit=1,
            )
        )
    return found


def serve_schedules(schedules: Schedules) -> None:
    """Serve until stopped.

    Raises:
        UsageError: No Prefect server is named: a temporary one would forget its schedules.
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise UsageError(
            "schedules need a Prefect server that stays: start `prefect server start` and set "
            "PREFECT_API_URL, such as http://127.0.0.1:4200/api"
        )
    found = deployments(schedules)
    for deployment in found:
        deployment.apply()  # from here on the server plans with these settings
    forget_stale_runs(settings_of(found))
    serve(*found)
