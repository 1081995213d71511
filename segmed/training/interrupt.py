"""Ctrl-C and SIGTERM as a request to stop after the current step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopWish:
    """Set at the first request to stop.

    Attributes:
        signal_name: The signal received, such as `SIGTERM`; empty before one arrives.
        acts_at_once: A signal raises KeyboardInterrupt; see `at_once`.
    """

    def __init__(self) -> None:
        self.signal_name = ""
        self.acts_at_once = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the block, which may be long and changes nothing, a signal does not wait."""
        if self:
            raise KeyboardInterrupt(f"stopped by {self.signal_name}")
        self.acts_at_once = True
        try:
            yield
        finally:
            self.acts_at_once = False

    def __bool__(self) -> bool:
        return bool(self.signal_name)


@contextmanager
def stop_on_signals() -> Iterator[StopWish]:
    """Turn SIGINT and SIGTERM into a wish; a second signal acts at once.

    Only the main thread can do this; elsewhere the signals keep their meaning.
    """
    wish = StopWish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _frame: FrameType | None) -> None:
        is_second = bool(wish)
        wish.signal_name = signal.Signals(number).name
        if is_second or wish.acts_at_once:
            raise KeyboardInterrupt(f"stopped by {wish.signal_name}")

    for number in before:
        signal.signal(number, note)
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
