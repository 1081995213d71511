"""Figures of an archive's output folder for Prometheus, read from its ledger at each request.

Runs of `segmed serve` are processes of their own, and some are killed; the ledger outlives them.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipelines.runs.watch_metrics import watch_figures
from segmed.archive.ledger.file import LEDGER_FILE
from segmed.archive.ledger.migrations import read_in_todays_words
from segmed.archive.ledger.tables import STATES
from segmed.archive.quality_bound import read_bound
from segmed.errors import UsageError

LOOPBACK = "127.0.0.1"

NOT_DONE = {
    "refused_and_failed": "Refused and failed studies.",
    "bad_ends": "Old name of segmed_refused_and_failed; will be removed in the next version.",
}
"""Names of the count of studies without a result; the old one is for dashboards in use."""


class ArchiveFigures(Collector):
    """Metrics of one output folder, collected at each scrape.

    Args:
        out_dir: The output folder of an archive run; it may not exist yet.
    """

    def __init__(self, out_dir: Path) -> None:
        self._out_dir = out_dir

    def collect(self) -> Iterator[Metric]:
        """Return the current figures."""
        folder = next(p for p in (self._out_dir, *self._out_dir.absolute().parents) if p.exists())
        yield gauge("output_free_bytes", "Space left for outputs.", shutil.disk_usage(folder).free)
        yield from watch_figures(self._out_dir)
        path = self._out_dir / LEDGER_FILE
        yield gauge("ledger_exists", "Whether there has been a run.", float(path.exists()))
        if path.exists():
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as ledger:
                read_in_todays_words(ledger)
                yield from _studies(ledger)
                yield from _runs(ledger)
        yield from _quality(self._out_dir)


def _quality(out_dir: Path) -> Iterator[Metric]:
    """Figures of the promise that the last run settled; none of a model without one."""
    bound = read_bound(out_dir)
    if not bound.model:
        return
    yield gauge(
        "quality_promised",
        "Whether the promise about unreviewed results is in force.",
        float(bound.is_promised),
    )
    yield gauge("quality_to_review", "Results of the last run to review.", bound.to_review)
    for name, about, value in (
        ("quality_threshold", "Predicted quality below which to review.", bound.threshold),
        ("quality_risk_upper", "Upper bound of the failures among the unreviewed.", bound.upper),
    ):
        if value is not None and not bound.withdrawn:
            yield gauge(name, about, value)
    withdrawn = GaugeMetricFamily(
        "segmed_quality_withdrawn", "Drift that withdraws the promise.", labels=["feature"]
    )
    for feature in bound.withdrawn:
        withdrawn.add_metric([feature], 1.0)
    yield withdrawn


def gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    """One figure without labels."""
    return GaugeMetricFamily(f"segmed_{name}", about, value=value)


def _studies(ledger: sqlite3.Connection) -> Iterator[Metric]:
    states = GaugeMetricFamily("segmed_studies", "Studies by state.", labels=["state"])
    found = dict(ledger.execute("SELECT state, count(*) FROM studies GROUP BY state"))
    for state in STATES:
        states.add_metric([state], found.get(state, 0))
    yield states
    reasons = ledger.execute(
        "SELECT reason, count(*) FROM studies WHERE state IN ('failed', 'refused') GROUP BY reason"
    ).fetchall()
    for name, about in NOT_DONE.items():
        metric = GaugeMetricFamily(f"segmed_{name}", about, labels=["reason"])
        for reason, number in reasons:
            metric.add_metric([str(reason)], number)
        yield metric
    seconds = ledger.execute("SELECT coalesce(sum(seconds), 0) FROM studies").fetchone()[0]
    yield gauge("segmentation_seconds", "Time spent on all studies in the ledger.", seconds)


def _runs(ledger: sqlite3.Connection) -> Iterator[Metric]:
    row = ledger.execute("SELECT started, ended FROM runs ORDER BY run DESC LIMIT 1").fetchone()
    if row is None:
        return
    yield gauge("last_run_started_timestamp_seconds", "Start of the newest run.", row[0])
    yield gauge("last_run_ended", "Whether it came to its end.", float(row[1] is not None))
    if row[1] is not None:
        yield gauge("last_run_ended_timestamp_seconds", "End of the newest run.", row[1])


@contextmanager
def serving_metrics(out_dir: Path, port: int, host: str = LOOPBACK) -> Iterator[None]:
    """Within the block, answer `http://HOST:PORT/metrics`.

    Args:
        out_dir: Output folder of the archive runs.
        port: Where to listen.
        host: Address to listen on; the loopback interface unless another is named.

    Raises:
        UsageError: The port cannot be had.
    """
    registry = CollectorRegistry()
    registry.register(ArchiveFigures(out_dir))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise UsageError(
            f"metrics cannot be served on {host}:{port} ({error.strerror}); choose another port"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
