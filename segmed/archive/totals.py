"""Total of a run's studies while the run is already at work, for its progress bar."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Protocol, runtime_checkable

from segmed.archive.folder_source import FolderSource
from segmed.archive.study import StudySource
from segmed.errors import SegmedError

OnTotal = Callable[[int, bool], None]
"""Called in any thread with the number of units of work, and whether it is an estimate."""


@runtime_checkable
class ListedSource(StudySource, Protocol):
    """A source that counts studies cheaply, and learns the units of work in each one by one."""

    on_listed: Callable[[int], None] | None

    def count_studies(self) -> int:
        """Number of studies, without what is in them."""
        ...


class Estimate:
    """Units of work of a PACS: those of the studies listed so far, and as many in each other one.

    Args:
        on_total: Called whenever the total has changed.
    """

    def __init__(self, on_total: OnTotal) -> None:
        self._on_total = on_total
        self._lock = threading.Lock()
        self._studies: int | None = None
        self._listed = self._units = 0
        self._shown: tuple[int, bool] | None = None

    def expect(self, num_studies: int) -> None:
        """Set the number of studies."""
        with self._lock:
            self._studies = num_studies
            self._show()

    def add(self, num_units: int) -> None:
        """Add the units of one study."""
        with self._lock:
            self._listed += 1
            self._units += num_units
            self._show()

    def _show(self) -> None:
        if self._studies is None or not self._listed:
            return
        left = max(self._studies - self._listed, 0)
        now = self._units + round(left * self._units / self._listed), left > 0
        if now != self._shown:
            self._shown = now
            self._on_total(*now)


def counted(source: StudySource, on_total: OnTotal) -> StudySource:
    """The source, its studies being counted in a thread while the first ones are segmented.

    What cannot be read ends the count without a word: the run itself reports it.

    Args:
        source: A folder is counted exactly. The total of a PACS is an estimate until its last study
            is listed, from the number of studies and the units of work in those listed.
        on_total: Called with the total; never for a source that does not know it.
    """
    if isinstance(source, FolderSource):
        folder = source
        _in_background(lambda: on_total(folder.count(), False))
    elif isinstance(source, ListedSource):
        listed, estimate = source, Estimate(on_total)
        _in_background(lambda: estimate.expect(listed.count_studies()))
        return replace(source, on_listed=estimate.add)  # type: ignore[type-var]  # a dataclass
    return source


def _in_background(count: Callable[[], None]) -> None:
    def run() -> None:
        with suppress(SegmedError, OSError):
            count()

    threading.Thread(target=run, daemon=True).start()
