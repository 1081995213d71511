"""SIGTERM as a wish to stop, as supervisors and container engines send it: what Ctrl-C does."""

from __future__ import annotations

import os
import signal
from types import FrameType


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
