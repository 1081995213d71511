"""One promotion of a model at a time, over all machines that share a registry.

MLflow has no compare-and-set, but the names of registered models are unique: who manages to create
the model `segmed-lock--NAME` has the lock, and deletes it in the end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipelines.registry.reference import LOCK_PREFIX
from pipelines.tracking.delivery import translated
from segmed.errors import UsageError

STALE_SECONDS = 120.0
"""A lock older than this was left by a process that died; a swap takes well under a second."""


@contextmanager
def promotion_lock(client: MlflowClient, uri: str, name: str) -> Iterator[None]:
    """Hold the lock of a model within the block.

    Raises:
        UsageError: Another process has it.
    """
    lock = LOCK_PREFIX + name
    if not _take(client, uri, lock):
        free = _is_stale(client, uri, lock) and _break(client, uri, lock)
        if not (free and _take(client, uri, lock)):
            raise UsageError(f"another promotion of {name!r} is running; try again in a moment")
    try:
        yield
    finally:
        translated(uri, lambda: client.delete_registered_model(lock))


def _created(client: MlflowClient, uri: str, lock: str) -> int | None:
    """Return the time at which a lock was taken, in ms; None if it is free."""
    try:
        model = translated(uri, lambda: client.get_registered_model(lock))
    except UsageError:
        return None
    return int(model.creation_timestamp)


def _is_stale(client: MlflowClient, uri: str, lock: str) -> bool:
    created = _created(client, uri, lock)
    return created is not None and time.time() - created / 1000 >= STALE_SECONDS


def _break(client: MlflowClient, uri: str, lock: str) -> bool:
    """Remove a stale lock; of several that try, one does, and none removes a fresh one.

    The right to remove this very lock is a lock itself, named by the time when it was taken.
    """
    created = _created(client, uri, lock)
    right = f"{lock}--{created}"
    if not _take(client, uri, right):
        if _is_stale(client, uri, right):  # its owner died as well
            translated(uri, lambda: client.delete_registered_model(right))
        return False
    is_same = _created(client, uri, lock) == created
    if is_same:
        translated(uri, lambda: client.delete_registered_model(lock))
    translated(uri, lambda: client.delete_registered_model(right))
    return is_same


def _take(client: MlflowClient, uri: str, lock: str) -> bool:
    def create() -> bool:
        try:
            client.create_registered_model(lock)
        except MlflowException as error:
            if error.error_code == "RESOURCE_ALREADY_EXISTS":
                return False
            raise
        return True

    return translated(uri, create)
