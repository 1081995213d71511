"""Threads of one stage of a pipeline: they run calls in their order, and end with the process.

The threads of `concurrent.futures` are joined when the interpreter ends; one that waits for a next
image would keep a finished program alive.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Value = TypeVar("Value")


class StageThreads:
    """Daemon threads that take calls in their order; one, if no number is given.

    Args:
        name: Name of the threads.
        count: Number of threads.
    """

    def __init__(self, name: str, count: int = 1) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = (
            queue.SimpleQueue()
        )
        self._threads = [
            threading.Thread(target=self._run, name=name, daemon=True) for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[[], Value]) -> Future[Value]:
        """Queue a call; its future is done when it has returned or raised."""
        future: Future[Value] = Future()
        self._calls.put((future, call))
        return future

    def __enter__(self) -> StageThreads:
        """The threads."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Wait for the calls that are queued and not cancelled, and end the threads."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (work := self._calls.get()) is not None:
            future, call = work
            if not future.set_running_or_notify_cancel():
                continue
            try:
                value = call()
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is used
                future.set_exception(error)
            else:
                future.set_result(value)
            del work, future, call
