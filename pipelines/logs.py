"""Logs for machines: one JSON object a line, with the ids of run and study if any."""

from __future__ import annotations

import json
import logging
import os
import secrets
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command tree needs the form of log lines, not the archive
    from segmed.archive.study import StudyOutcome

FORMAT_VARIABLE = "SEGMED_LOG_FORMAT"
"""Environment variable with the form of log lines; processes that a run starts inherit it."""

FIELDS = ("study", "status", "reason", "seconds", "model")
"""What a record may say besides its message."""

RUN = secrets.token_hex(6)
"""Id of this run of the program: random, so it says nothing of data or people."""

logger = logging.getLogger(__name__)


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        content: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "run": RUN,
        }
        content |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(content, default=str)


def log_as_json() -> None:
    """Let every handler of the root logger write JSON lines, from the library's level upwards."""
    if not logging.getLogger().handlers:
        logging.basicConfig(stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonLines())
    for name in ("segmed", __package__):
        logging.getLogger(name).setLevel(logging.INFO)


def log_outcome(outcome: StudyOutcome) -> None:
    """One record about a study: its name is a piece of a hash, its reason names no person."""
    if os.environ.get(FORMAT_VARIABLE) == "json":  # a run that Prefect started in a process apart
        log_as_json()
    logger.info(
        "study ended",
        extra={
            "study": outcome.study,
            "status": outcome.status,
            "reason": outcome.reason,
            "seconds": round(outcome.seconds, 3),
            "model": outcome.package[:12],
        },
    )
