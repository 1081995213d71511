"""What runs every week: all models on all folds, the winner registered as challenger."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from pipelines.flows.compare import compare
from pipelines.jobs import Request
from segmed.training import Budget


@flow(name="weekly")
def weekly(manifest: str, out_dir: str, hours: float, model: str, folder: str = ".") -> str:
    """Compare all models anew; returns the registered version."""
    request = Request.parse(
        Path(manifest),
        models="all",
        folds="all",
        plan=None,
        budget=Budget(seconds=3600.0 * hours),
        register=model,
        out_dir=Path(out_dir),
    )
    return str(compare(request.in_folder(Path(folder)))["registered"])
