"""Retry policy of tasks that are safe to repeat; trainings are not."""

from __future__ import annotations

from typing import Any

from prefect.cache_policies import NO_CACHE

from segmed.errors import SegmedError, ServiceError
from segmed.full_disk import is_full_disk


def is_transient(error: BaseException) -> bool:
    """Return whether another try may succeed: services and shares come back, bad input stays."""
    if isinstance(error, SegmedError):
        return isinstance(error, ServiceError)
    lasting = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
    return isinstance(error, OSError) and not isinstance(error, lasting) and not is_full_disk(error)


def is_worth_a_retry(_task: Any, _run: Any, state: Any) -> bool:
    """The same for the state of a failed task."""
    try:
        state.result()
    except Exception as error:  # noqa: BLE001 - only asked which kind it is
        return is_transient(error)
    return False


RETRIED: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": 2,
    "retry_delay_seconds": 10,
    "retry_condition_fn": is_worth_a_retry,
}
"""Options of a task that is safe to repeat."""
