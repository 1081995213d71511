"""Prepare the training cases of a set once, before any training's budget starts."""

from __future__ import annotations

from typing import Any

from prefect import flow, task, unmapped
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.task_runners import ThreadPoolTaskRunner

from pipelines.comparing.preparing import (
    WORKERS,
    Chunk,
    Preparation,
    Tally,
    missing_chunks,
    prepare_chunk,
)
from pipelines.flows.retrying import RETRIED
from pipelines.runs.page import shown_parameter

PROGRESS_KEY = "preprocessing-progress"

RUNNER: Any = ThreadPoolTaskRunner(max_workers=WORKERS)  # Prefect's own types refuse its runner


def name_of_preparation() -> str:
    """Name of a flow run, such as `preprocess hippocampus.json`."""
    path = str(shown_parameter("preparation", "manifest_path"))
    return f"preprocess {path.rsplit('/', 1)[-1]}"


@flow(name="preprocess", flow_run_name=name_of_preparation, task_runner=RUNNER)
def preprocess(preparation: Preparation) -> int:
    """Fill the cache of prepared cases.

    Args:
        preparation: Which cases, how, and where to.

    Returns:
        How many cases were missing.
    """
    chunks = missing_chunks(preparation)
    tally = Tally(of=chunks[0].of if chunks else 0)
    words = f"{tally.of} cases to prepare" if chunks else "all cases are in the cache"
    bar: Any = create_progress_artifact(0.0, key=PROGRESS_KEY, description=words)
    try:
        for cases in prepare.map(chunks, unmapped(tally)):
            cases.result()
            update_progress_artifact(bar, progress=100.0 * tally.done / tally.of)
    except BaseException:  # also where the run is cancelled
        tally.is_stopped.set()
        raise
    finally:
        tally.end()
    update_progress_artifact(bar, progress=100.0)
    return tally.of


@task(task_run_name="cases {chunk.first} to {chunk.last} of {chunk.of}", **RETRIED)
def prepare(chunk: Chunk, tally: Tally) -> int:
    """Some cases; those in the cache already cost nothing."""
    return prepare_chunk(chunk, tally)
