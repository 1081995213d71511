"""Logs for machines: one JSON object a line, with the ids of run and study where there are any."""

from __future__ import annotations

import json
import logging
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

FORMAT_VARIABLE = "SEGMED_LOG_FORMAT"
"""Environment variable with the form of log lines; processes that a run starts inherit it."""

FIELDS = ("run", "study", "status", "reason", "seconds", "model")
"""What a record may say besides its message."""

_run: ContextVar[str] = ContextVar("segmed_run", default="")


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        content: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if _run.get():
            content["run"] = _run.get()
        content |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(content, default=str)


def log_as_json() -> None:
    """Let every handler of the root logger write JSON lines, from what the library says upwards."""
    if not logging.getLogger().handlers:  # a run that Prefect started in a process of its own
        logging.basicConfig(stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonLines())
    for name in ("segmed", __package__):
        logging.getLogger(name).setLevel(logging.INFO)


@contextmanager
def run_id() -> Iterator[str]:
    """Within the block every record carries the id of one run.

    Yields:
        The id: random hex digits, which say nothing of data or people.
    """
    if os.environ.get(FORMAT_VARIABLE) == "json":
        log_as_json()
    name = secrets.token_hex(6)
    token = _run.set(name)
    try:
        yield name
    finally:
        _run.reset(token)
