"""Prefect artifacts of a run: name, progress and outcomes of the studies."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.runtime import flow_run

from pipelines.registry.reference import short_name
from pipelines.runs.summary import RunSummary
from segmed.archive import Ledger, StudyOutcome
from segmed.archive.ledger.file import LEDGER_FILE

progress = logging.getLogger("segmed.progress")

EVERY_S = 5.0
"""Longest silence of a run that goes well, and shortest between two updates of its bar, in s."""

SUMMARY_KEY, STUDIES_KEY, DRIFT_KEY, BAR_KEY = (
    "archive-summary",
    "archive-refused-and-failed",
    "archive-drift",
    "archive-progress",
)


def name_of_run() -> str:
    """Name of a flow run, such as `nightly hippocampus@champion 25 Nov 02:00`."""
    models = shown_parameter("job", "models") or ()
    shown = "+".join(short_name(str(name)) for name in models)
    when = flow_run.scheduled_start_time or datetime.now(UTC)
    return f"{flow_run.flow_name} {shown} {when:%d %b %H:%M}"


def shown_parameter(name: str, field: str) -> Any:
    """A field of a parameter of the flow that runs here, given as a record or as JSON."""
    given = flow_run.parameters.get(name)
    return given.get(field) if isinstance(given, dict) else getattr(given, field, None)


class Bar:
    """A progress bar on Prefect's page, and a line in the log now and then.

    Args:
        expected: Studies that the archive held when it was last gone through; 0 when never.
    """

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._met = self._fresh = 0
        self._last = time.monotonic()
        text = f"of about {expected} studies" if expected else "first run: number not known yet"
        made: Any = create_progress_artifact(0.0, key=BAR_KEY, description=text)
        self._id: UUID = made

    def show(self, outcome: StudyOutcome) -> None:
        """Count one outcome; refusals and failures are logged at once, others now and then."""
        self._met += 1
        self._fresh += outcome.fresh
        if outcome.fresh and outcome.status != "done":
            progress.warning("study %s  %s  %s", outcome.study, outcome.status, outcome.reason)
        if time.monotonic() - self._last > EVERY_S:
            self._last = time.monotonic()
            progress.info("%d studies met, %d of them worked on", self._met, self._fresh)
            if self._expected:
                share = min(99.0, 100.0 * self._met / self._expected)
                update_progress_artifact(self._id, progress=share)

    def end(self) -> None:
        """The run came to its end."""
        update_progress_artifact(self._id, progress=100.0, description=f"{self._met} studies")


def expected_studies(out_dir: Any) -> int:
    """Studies that the last run of an output folder met; 0 without one."""
    if not (out_dir / LEDGER_FILE).exists():
        return 0
    with Ledger(out_dir / LEDGER_FILE, writer=False) as ledger:
        return sum(ledger.counts().values())


def show_run(summary: RunSummary) -> None:
    """Leave the summary, the failures and the drift watch as artifacts of the run."""
    lines = "\n".join(f"- {line}" for line in summary.lines())
    create_markdown_artifact(
        f"## {summary.headline()}\n\n{lines}\n", key=SUMMARY_KEY, description=summary.headline()
    )
    rows = [{"study": study, "reason": reason} for study, reason in summary.failures]
    if rows:
        create_table_artifact(
            rows, key=STUDIES_KEY, description=f"{summary.num_failures} refused or failed studies"
        )
    if summary.drift:
        create_table_artifact(
            [
                {
                    "feature": row.feature,
                    "alarm": "ALARM" if row.is_alarm else "",
                    "training": f"{row.training:.4g}",
                    "run": f"{row.run:.4g}",
                    "shift": f"{row.shift:+.2f}",
                    "p": f"{row.p_value:.1e}",
                    "n": row.num_run,
                }
                for row in summary.drift
            ],
            key=DRIFT_KEY,
            description=f"{len(summary.alarms)} alarms of {len(summary.drift)} features",
        )
