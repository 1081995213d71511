"""One run at a time on a GPU, over all flows and workers, also after a crash.

The place is a global concurrency limit of the Prefect server, one for each GPU of a machine (one
for the machine where it has none). Trainings and archive runs take the same one. It is held by a
lease that its holder renews: when that dies, the place is free again after `LEASE_S`.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_API_URL

from segmed.training import choose_device

progress = logging.getLogger("segmed.progress")

LEASE_S = 60.0
"""After the death of its holder a place is free within this time, in s."""

SLOTS_VARIABLE = "SEGMED_GPU_SLOTS"
"""Environment variable: runs that share a device at once; 1 unless it says more."""


def slot_name(device: str) -> str:
    """Name of the limit of a device: `auto`, `cpu`, `cuda` or `cuda:N`."""
    found = choose_device(device)
    return limit_name((found.torch_device.index or 0) if found.is_cuda else None)


def limit_name(number: int | None) -> str:
    """Name of the limit of a visible GPU, or of the machine, as Prefect's page lists it.

    A GPU is numbered as the machine numbers it, whatever `CUDA_VISIBLE_DEVICES` shows of them.
    """
    machine = f"segmed-gpu-{socket.gethostname()}"
    if number is None:
        return machine
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return f"{machine}-{visible[number] if any(visible) and number < len(visible) else number}"


@contextmanager
def held_devices(devices: Sequence[str]) -> Iterator[None]:
    """Wait until no other flow run of the same Prefect server uses these devices, and hold them.

    All are taken at once, so that two runs never wait for each other. Without a lasting server
    there is nobody to wait for.

    Args:
        devices: As `slot_name` takes them; several names of one device are one.
    """
    if not PREFECT_API_URL.value():
        yield
        return
    names = sorted({slot_name(device) for device in devices})
    slots = int(os.environ.get(SLOTS_VARIABLE, "1"))
    for name in names:
        if make_limit(name, slots):
            progress.info("waiting for %s, which another run uses", name)
    with concurrency(
        names,
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
