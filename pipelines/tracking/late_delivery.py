"""Delivery of records that earlier runs could not send to the tracking server."""

from __future__ import annotations

import time
from pathlib import Path

from pipelines.tracking.address import tracking_uri
from pipelines.tracking.delivery import RunDelivery
from pipelines.tracking.outbox import Outbox, deliver, outboxes
from pipelines.tracking.runs import OUTBOX_FOLDER, connect_quietly


def sync(folder: Path = Path(), *, uri: str | None = None) -> tuple[int, int]:
    """Deliver what earlier runs left in the outboxes of a working folder.

    Runs that still live are left alone; a run whose process was killed is ended as killed.

    Returns:
        Records delivered, and outboxes that were emptied.

    Raises:
        ServiceError: The server does not answer; what it took is remembered.
    """
    uri = uri or tracking_uri(folder)
    client = connect_quietly(uri)
    sent = emptied = 0
    for outbox in outboxes(folder / OUTBOX_FOLDER):
        claim = outbox.claim()
        if claim is None:
            continue
        with claim:
            _close_orphan(outbox)
            sent += deliver(outbox, RunDelivery(client, uri, outbox))
            outbox.discard()
            emptied += 1
    return sent, emptied


def _close_orphan(outbox: Outbox) -> None:
    outbox.trim()
    records = outbox.records()
    if records and records[-1]["kind"] != "end":
        end = {"kind": "end", "status": "KILLED", "time": time.time_ns() // 1_000_000}
        outbox.append({**end, "experiment": records[0]["experiment"]})
