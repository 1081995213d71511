"""One run at a time on a machine's GPUs, over all flows and workers, also after a crash.

The place is a global concurrency limit of the Prefect server: one for each machine, and one for
each of its GPUs where trainings run side by side. It is held by a lease that its holder renews:
when that dies, the place is free again after `LEASE_S`.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

progress = logging.getLogger("segmed.progress")

LEASE_S = 60.0
"""After the death of its holder a place is free within this time, in s."""

SLOTS_VARIABLE = "SEGMED_GPU_SLOTS"
"""Environment variable: runs that share this machine's devices at once; 1 unless it says more."""


def slot_name() -> str:
    """Name of this machine's limit, as Prefect's page lists it."""
    return f"segmed-gpu-{socket.gethostname()}"


@contextmanager
def gpu_slot() -> Iterator[None]:
    """Wait for this machine's slot, and keep it; without a lasting server there is none."""
    if not os.environ.get("PREFECT_API_URL"):
        yield
        return
    with _held(slot_name(), int(os.environ.get(SLOTS_VARIABLE, "1"))):
        yield


@contextmanager
def device_slot(device: str) -> Iterator[None]:
    """Wait until no other flow run of the same Prefect server trains on this GPU, and keep it.

    Args:
        device: `cuda:N`; anything else is not limited.
    """
    if not device.startswith("cuda:"):
        yield
        return
    with _held(f"{slot_name()}-{device.removeprefix('cuda:')}", 1):
        yield


@contextmanager
def _held(name: str, slots: int) -> Iterator[None]:
    if make_limit(name, slots):
        progress.info("waiting for %s, which another run uses", name)
    with concurrency(
        name,
        occupy=1,
        lease_duration=LEASE_S,
        strict=True,
        raise_on_lease_renewal_failure=False,
    ):
        yield


def make_limit(name: str, slots: int) -> bool:
    """Make the limit if the server has none; returns whether all its places are taken.

    A limit that was changed on the server stays as it is.
    """
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            with suppress(ObjectAlreadyExists):  # another run made it meanwhile
                client.create_global_concurrency_limit(
                    GlobalConcurrencyLimitCreate(name=name, limit=slots)
                )
            return False
        return limit.active_slots >= limit.limit
