"""Figures of a watch for Prometheus: from the file of its queue and the ledgers of its rules."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric

from segmed.archive import Ledger
from segmed.archive.ledger.file import LEDGER_FILE
from segmed.archive.watch.snapshot import STATES_OF_QUEUE, Snapshot, read_snapshot


def watch_figures(out_dir: Path) -> Iterator[Metric]:
    """Figures of the watch of an output folder; none where there was no watch.

    Args:
        out_dir: Output folder of the watch.
    """
    found = read_snapshot(out_dir)
    if found is None:
        return
    yield _gauge("up", "Whether the watch is at work.", float(found.is_alive))
    yield _gauge("server_answers", "Whether the server that is watched answers.", not found.server)
    yield _queue(found)
    queued = [one.since for one in found.studies if one.state in {"queued", "in work"}]
    oldest = max(time.time() - min(queued), 0.0) if queued else 0.0
    yield _gauge("oldest_queued_seconds", "Time since the oldest queued study entered.", oldest)
    if found.latencies_s:
        latency = GaugeMetricFamily(
            "segmed_watch_latency_seconds",
            "Time from the last change of a study to its end, over the last studies.",
            labels=["quantile"],
        )
        for quantile, seconds in zip(("0.5", "0.95"), found.latencies_s, strict=True):
            latency.add_metric([quantile], seconds)
        yield latency
        yield _parts(found)
    yield _results(found, out_dir)


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"segmed_watch_{name}", about, value=value)


def _queue(found: Snapshot) -> Metric:
    """Studies that are arriving or in the queue, by route and state."""
    metric = GaugeMetricFamily(
        "segmed_watch_studies", "Studies without a result yet.", labels=["route", "state"]
    )
    numbers = Counter((study.route, study.state) for study in found.studies)
    for route in found.routes:
        for state in STATES_OF_QUEUE:
            metric.add_metric([route, state], numbers[route, state])
    return metric


def _parts(found: Snapshot) -> Metric:
    """Parts of the latency, by quantile."""
    metric = GaugeMetricFamily(
        "segmed_watch_part_seconds",
        "Parts of the time from the last change of a study to its end, over the last studies.",
        labels=["part", "quantile"],
    )
    for part, seconds in found.parts_s.items():
        for quantile, value in zip(("0.5", "0.95"), seconds, strict=True):
            metric.add_metric([part, quantile], value)
    return metric


def _results(found: Snapshot, out_dir: Path) -> Metric:
    """Studies in the ledger of each route, by state."""
    metric = GaugeMetricFamily(
        "segmed_watch_results", "Studies by route and state.", labels=["route", "state"]
    )
    for route, folder in found.routes.items():
        path = out_dir / folder / LEDGER_FILE
        if path.is_file():
            with Ledger(path, writer=False) as ledger:
                for state, number in ledger.counts().items():
                    metric.add_metric([route, state], number)
    return metric
