"""One training a GPU, whichever flow run asks for it: a limit that the Prefect server keeps."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency


def limit_name(device: str) -> str:
    """The limit's name: one for each GPU of each machine."""
    return f"segmed-{socket.gethostname()}-{device.replace(':', '-')}"


@contextmanager
def one_at_a_time(device: str) -> Iterator[None]:
    """Wait until no other flow run of the same Prefect server trains on this GPU.

    A holder that dies gives its place back when its lease ends, after minutes.

    Args:
        device: `cuda:N`; anything else is not limited.
    """
    if not device.startswith("cuda:"):
        yield
        return
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(limit_name(device), 1)
    with concurrency(limit_name(device), strict=True, raise_on_lease_renewal_failure=False):
        yield
