"""What runs every night: what earlier runs owe the tracker, then the archive."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from pipelines.flows.segment_archive import segment_archive
from pipelines.tracking import sync


@flow(name="nightly")
def nightly(source: str, model: str, out_dir: str, folder: str = ".") -> dict[str, int]:
    """Deliver kept values, then segment what came in; returns studies by status."""
    deliver_kept_values(folder)
    return segment_archive(source, model, out_dir, folder=folder)


@task(cache_policy=NO_CACHE)
def deliver_kept_values(folder: str) -> int:
    """Send what a tracking server did not take when it was away."""
    return sync(Path(folder))[0]
