"""SIGTERM as a request to stop, as supervisors and container engines send it; it acts as Ctrl-C."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn


def stop_on_sigterm() -> None:
    """From now on SIGTERM ends a command as Ctrl-C does: results so far are written, status 130.

    A command with a handler of its own (training, `segmed serve`) replaces this one. Processes that
    are forked from this one die of the signal as if nothing had been set.
    """
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return
    ours = os.getpid()

    def stop(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends at once
        if os.getpid() != ours:
            os.kill(os.getpid(), number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


def end_at_once(status: int) -> NoReturn:
    """End the process without waiting for threads and exit handlers.

    All that a command keeps is written by then. What is left waits for servers: clients of Prefect
    and MLflow send their last records, for up to a minute where no server answers.

    Args:
        status: Exit status.
    """
    if "pipelines.flows.runner" in sys.modules:
        sys.modules["pipelines.flows.runner"].stop_temporary_server()
    for child in multiprocessing.active_children():
        child.terminate()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
