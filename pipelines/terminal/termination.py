"""SIGINT and SIGTERM as requests to stop, as terminals and supervisors send them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""Exit status of a command that was stopped by a signal."""

LOOK_AGAIN_S = 0.05
"""Time between two looks at an import that a stop waits for."""

LONGEST_WAIT_S = 2.0
"""Time after which a stop interrupts an import, again and again where the import swallows it."""

SWALLOWING = (
    "<frozen importlib._bootstrap>",
    f"openvino{os.sep}tools{os.sep}ovc{os.sep}",
    f"openvino{os.sep}frontend{os.sep}",
)
"""Parts of file names in the frames of imports and of OpenVINO's conversions, which may swallow an
exception: the latter call Python from C++, where it loses its type."""


def stop_on_signals() -> None:
    """From now on SIGINT and SIGTERM end a command: results so far are written, status 130.

    A signal that arrives while a library is imported, or OpenVINO converts a network, takes effect
    afterwards, because libraries and the import system itself swallow some exceptions that are
    raised there; a long import is interrupted after two seconds. A second signal takes effect at
    once. A signal that the
    caller ignores or handles stays as it is; a command with handlers of its own (training, `segmed
    serve`) replaces these.
    """
    stop = _Stop()
    for number, default in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is default:
            signal.signal(number, stop)


def stop_if_asked() -> None:
    """Raise KeyboardInterrupt if a stop still waits for an import that has ended by now.

    Called when a command is done, which may be sooner than the next look at the import.
    """
    if forget_stop():
        raise KeyboardInterrupt


def forget_stop() -> bool:
    """Forget a stop that waits for an import; return whether there was one."""
    stop = signal.getsignal(signal.SIGALRM)
    return isinstance(stop, _Stop) and stop.end_wait()


def is_caused_by_stop(error: BaseException) -> bool:
    """Return whether an error is what a library made of a KeyboardInterrupt.

    Extension modules of pybind11 end an interrupted import with an ImportError of that cause; those
    of Rust and C (pydantic, SQLite) raise an error of their own, which knows nothing of the
    interrupt. An error that arose while a stop was handled (its context) is one of its own.
    """
    cause = error.__cause__
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__
    return cause is not None or (_Stop.was_raised and not _is_of_interrupt(error))


class _Stop:
    """Handler that raises KeyboardInterrupt in the main thread, within an import only late."""

    was_raised = False
    """True once a KeyboardInterrupt was raised in this process."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.is_waiting = False
        self.raises_at = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise, or look again later; SIGALRM is the second look."""
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)  # a second one ends at once
            if os.getpid() != self.process:  # forked processes die of it as if nothing were set
                os.kill(os.getpid(), number)
        is_second = self.is_waiting and number != signal.SIGALRM
        if _is_swallowing(frame) and not is_second:
            self._wait()
            if time.monotonic() < self.raises_at or _is_unwinding():
                return
            self.raises_at = time.monotonic() + LONGEST_WAIT_S
        elif self.end_wait() and _is_unwinding():
            return
        _Stop.was_raised = True
        raise KeyboardInterrupt

    def end_wait(self) -> bool:
        """Look at no import any more; return whether a stop was waiting for one."""
        was_waiting, self.is_waiting = self.is_waiting, False
        if was_waiting:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        return was_waiting

    def _wait(self) -> None:
        if not self.is_waiting:
            self.is_waiting = True
            self.raises_at = time.monotonic() + LONGEST_WAIT_S
            signal.signal(signal.SIGALRM, self)
            signal.setitimer(signal.ITIMER_REAL, LOOK_AGAIN_S, LOOK_AGAIN_S)


def _is_swallowing(frame: FrameType | None) -> bool:
    """Return whether a frame runs within an import or a conversion."""
    while frame is not None:
        if any(part in frame.f_code.co_filename for part in SWALLOWING):
            return True
        frame = frame.f_back
    return False


def _is_unwinding() -> bool:
    """Return whether a KeyboardInterrupt is being handled."""
    return _is_of_interrupt(sys.exc_info()[1])


def _is_of_interrupt(error: BaseException | None) -> bool:
    """Return whether an error is a KeyboardInterrupt, or arose while one was handled."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


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
