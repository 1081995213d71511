"""Figures of a watch for Prometheus."""

from __future__ import annotations

import time
from pathlib import Path

from pipelines.runs.metrics import ArchiveFigures
from segmed.archive import Ledger
from segmed.archive.study import Study
from segmed.archive.watch.snapshot import Snapshot, SnapshotFile, WaitingStudy


def figures(out: Path) -> dict[tuple[str, ...], float]:
    """Value of every sample of the watch, by name and labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in ArchiveFigures(out).collect()
        if metric.name.startswith("segmed_watch")
        for sample in metric.samples
    }


def test_queue_results_and_latency_are_figures(tmp_path: Path) -> None:
    now = time.time()
    studies = (
        WaitingStudy("a", "mr", "queued", "", now - 50),
        WaitingStudy("b", "mr", "arriving", "quiet for less than 20 s", now - 500),
    )
    snapshot = Snapshot(True, "", studies, {"mr": "mr", "ct": "ct"}, (10.0, 30.0))
    SnapshotFile(tmp_path).write(snapshot)
    with Ledger(tmp_path / "mr/ledger.sqlite") as ledger:
        run = ledger.begin_run("package")
        ledger.enter(Study("content", "dicom", "place"), "key", "package", settings="", run=run)
    found = figures(tmp_path)
    assert found["segmed_watch_up",] == 1.0
    assert found["segmed_watch_server_answers",] == 1.0
    assert found["segmed_watch_studies", "mr", "queued"] == 1.0
    assert found["segmed_watch_studies", "mr", "arriving"] == 1.0
    assert found["segmed_watch_studies", "ct", "queued"] == 0.0
    assert 50.0 <= found["segmed_watch_oldest_queued_seconds",] < 400.0
    assert found["segmed_watch_latency_seconds", "0.95"] == 30.0
    assert found["segmed_watch_results", "mr", "pending"] == 1.0


def test_stopped_watch_is_down_and_no_watch_has_no_figures(tmp_path: Path) -> None:
    assert figures(tmp_path) == {}
    SnapshotFile(tmp_path).write(Snapshot(False))
    assert figures(tmp_path)["segmed_watch_up",] == 0.0
