"""One promotion of a model at a time, over all machines that share a registry.

MLflow has no compare-and-set, but the names of registered models are unique: who manages to create
the model `segmed-lock--NAME` holds the lock, and deletes it in the end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipelines.delivery import translated
from segmed.errors import UsageError

PREFIX = "segmed-lock--"

STALE_SECONDS = 120.0
"""A lock older than this was left by a process that died; a swap takes well under a second."""


def is_lock(name: str) -> bool:
    """Whether a registered model is a lock and no model."""
    return name.startswith(PREFIX)


@contextmanager
def promotion_lock(client: MlflowClient, uri: str, name: str) -> Iterator[None]:
    """Hold the lock of a model within the block.

    Raises:
        UsageError: Somebody else holds it.
    """
    lock = PREFIX + name
    if not _take(client, uri, lock):
        model = translated(uri, lambda: client.get_registered_model(lock))
        if time.time() - model.creation_timestamp / 1000 < STALE_SECONDS:
            raise UsageError(f"another promotion of {name!r} is going on; try again in a moment")
        client.delete_registered_model(lock)
        if not _take(client, uri, lock):
            raise UsageError(f"another promotion of {name!r} is going on; try again in a moment")
    try:
        yield
    finally:
        client.delete_registered_model(lock)


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
