"""Several small images in a network at once, each with a part of the processor's threads.

The layers of a small window do not keep all threads busy, and every thread waits for the slowest at
the end of each layer. Two windows side by side, with half of the threads each, end earlier than one
after the other; a large window gains nothing and would need its memory twice.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

SMALL_WINDOW = 2**17
"""Voxels of the largest window that is run beside others."""

MOST_STREAMS = 4


def streams_for(window: tuple[int, ...], threads: int) -> int:
    """Windows of one network that are run at once on a CPU.

    Args:
        window: Voxels along each axis of the window.
        threads: Threads of the process for networks.
    """
    return 1 if prod(window) > SMALL_WINDOW else max(1, min(threads, MOST_STREAMS))


class Places:
    """Places in the networks, taken by images and given back.

    Args:
        count: Number of places.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, count: int) -> Iterator[None]:
        """Wait for as many places and keep them until the end of the context."""
        with self._changed:
            self._changed.wait_for(lambda: self._free >= count)
            self._free -= count
        try:
            yield
        finally:
            with self._changed:
                self._free += count
                self._changed.notify_all()
