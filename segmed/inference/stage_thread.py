"""One thread of a pipeline: runs calls in their order, and ends with the process.

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


class StageThread:
    """A daemon thread that runs calls one after the other.

    Args:
        name: Name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], Value]) -> Future[Value]:
        """Queue a call; its future is done when it has returned or raised."""
        future: Future[Value] = Future()
        self._calls.put((future, call))
        return future

    def __enter__(self) -> StageThread:
        """The thread itself."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Wait for the calls that are queued and not cancelled, and end the thread."""
        self._calls.put(None)
        self._thread.join()

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
