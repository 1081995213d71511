"""Seconds that fetching and sending take, by study; other threads measure, the run's asks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

MOST = 1000
"""Transfers that are remembered: an archive run, unlike a watch, never asks for them."""

Transfer = Literal["fetching", "sending"]


@dataclass
class TransferTimes:
    """Seconds of the transfers of studies in hand, all tries of a transfer together."""

    _seconds: dict[tuple[str, Transfer], float] = field(default_factory=dict)

    @contextmanager
    def measured(self, key: str, transfer: Transfer) -> Iterator[None]:
        """Measure a transfer.

        Args:
            key: The study's key in the ledger.
            transfer: Its kind.
        """
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[key, transfer] = time.perf_counter() - begun
            if len(self._seconds) > MOST:
                self._seconds.pop(next(iter(self._seconds)), None)

    def taken(self, key: str, transfer: Transfer) -> float:
        """Seconds of a transfer, which are forgotten then; 0 if there was none."""
        return self._seconds.pop((key, transfer), 0.0)
