"""How flows are run from the command line: quietly, on a temporary server if none is named."""

from __future__ import annotations

import logging
import os
from typing import Any, ParamSpec, TypeVar

from prefect import Flow

from segmed.errors import SegmedError

PROGRESS = "segmed.progress"
"""Logger of what somebody who waits wants to see."""

P = ParamSpec("P")
R = TypeVar("R")


def run_flow(flow: Flow[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a flow to its end; our errors come out as they are, without Prefect's tracebacks.

    Args:
        flow: The flow.
        args: Its arguments.
        kwargs: Its named arguments.
    """
    logging.getLogger(PROGRESS).setLevel(logging.INFO)
    logging.getLogger("segmed").setLevel(os.environ.get("PREFECT_LOGGING_LEVEL", "INFO"))
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(without_expected_tracebacks)
    return flow(*args, **kwargs)


def without_expected_tracebacks(record: logging.LogRecord) -> bool:
    """Strip the traceback of an error that is one line by design; a logging filter."""
    error: Any = record.exc_info[1] if record.exc_info else None
    if isinstance(error, SegmedError | KeyboardInterrupt):
        record.exc_info = None
        record.exc_text = None
    return True
