"""Fill a cache of prepared cases: all cores, bounded memory, and what is done stays done."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from segmed.cores import usable_cores
from segmed.errors import ManifestError, SegmedError
from segmed.manifest.case_reader import CaseReader, over_cases
from segmed.manifest.schema import Case
from segmed.plan.schema import Plan
from segmed.preprocessing.cache import PreparedCache, PreparedCase
from segmed.transforms.room import free_bytes

log = logging.getLogger(__name__)

PACK_BYTES = 64 << 20
"""A pack is written when its records are so large together,"""

PACK_CASES = 512
"""or so many,"""

PACK_S = 30.0
"""or after so many seconds, so that a killed preparation loses no more than these."""

PREPARING_BYTES = 24
"""Bytes a voxel that reading and preparing a case takes, about."""


def prepare_cases(
    cache: PreparedCache,
    cases: Sequence[Case],
    *,
    on_case: Callable[[], None] | None = None,
    stop: threading.Event | None = None,
) -> list[PreparedCase]:
    """Prepare the cases that a cache does not have yet.

    Args:
        cache: The cache.
        cases: Cases of its manifest.
        on_case: Called after each case, prepared or found.
        stop: Ends the preparation after the cases in hand.

    Returns:
        The cases in order; where it was stopped, only those that were prepared.

    Raises:
        ManifestError: A case cannot be read; the message names it. Cases before it are kept.
    """
    batch = _Batch(cache)
    keys: list[str] = []
    cache.refresh()

    def work(reader: CaseReader, case: Case) -> tuple[str, tuple[bytes, Any] | None] | None:
        if stop is not None and stop.is_set():
            return None
        try:
            key = cache.key(case)
            return key, None if cache.has(key) else cache.content(case, reader)
        except (SegmedError, OSError) as error:
            raise ManifestError(f"case {case.id}: {error}") from error

    workers = workers_for(cache.plan, len(cases))
    prepared = over_cases(work, cache.manifest, cases, workers=workers, is_read=cache.lacks)
    try:
        for done in prepared:
            if done is None:
                break
            key, made = done
            keys.append(key)
            if made is not None:
                batch.add((key, *made))
            if on_case is not None:
                on_case()
    finally:
        prepared.close()
        batch.flush()
        cache.save()
    return [PreparedCase(cache, case, key) for case, key in zip(cases, keys, strict=False)]


class _Batch:
    """Records on their way into the next pack."""

    def __init__(self, cache: PreparedCache) -> None:
        self._cache = cache
        self._records: list[tuple[str, bytes, Any]] = []
        self._bytes = 0
        self._since = time.monotonic()

    def add(self, record: tuple[str, bytes, Any]) -> None:
        self._records.append(record)
        self._bytes += len(record[1])
        is_old = time.monotonic() - self._since > PACK_S
        if is_old or self._bytes >= PACK_BYTES or len(self._records) >= PACK_CASES:
            self.flush()

    def flush(self) -> None:
        self._cache.add(self._records)
        self._records, self._bytes, self._since = [], 0, time.monotonic()


def workers_for(plan: Plan, num_cases: int) -> int:
    """Number of cases to prepare at once: one a core, as far as memory goes.

    Args:
        plan: Its fingerprint says how large the images are.
        num_cases: Cases in all.
    """
    need = PREPARING_BYTES * plan.network_channels * _largest_voxels(plan)
    return max(1, min(usable_cores(), num_cases, int(free_bytes() // (2 * max(need, 1)))))


def _largest_voxels(plan: Plan) -> float:
    """Voxels of the largest image of the set, before or after resampling."""
    shape = plan.fingerprint.get("max_shape") or [1]
    stored = plan.fingerprint.get("median_spacing_mm") or [1.0]
    growth = prod(stored) / prod(plan.preprocessing.spacing_mm)
    return float(prod(shape) * max(1.0, growth))
