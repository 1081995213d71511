"""A DICOM node that receives studies: C-STORE and C-ECHO, and success only for what is on disk.

Source:
    DICOM PS3.4, annexes A (Verification) and B (Storage); PS3.7, annex C (status).
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification

from segmed.archive.pacs.dimse_inbox import SYNTAXES
from segmed.archive.watch.inbox import OTHER_INSTANCE, Inbox
from segmed.archive.writing import free_bytes
from segmed.errors import ImageError, UsageError

log = logging.getLogger(__name__)

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000

MORE_SYNTAXES = (
    "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81",
)  # fmt: skip
"""Encodings that are received besides those that are requested of a PACS; intake decides."""

MOST_ASSOCIATIONS = 32
MIN_FREE_BYTES = 1 << 30
"""Space that received images leave free on their disk."""


@contextmanager
def receiving(
    inbox: Inbox,
    *,
    title: str,
    host: str,
    port: int,
    callers: Collection[str] = (),
    min_free_bytes: int = MIN_FREE_BYTES,
) -> Iterator[int]:
    """Within the block, receive instances into an inbox.

    Args:
        inbox: Takes the instances.
        title: Our AE title; senders that call another one are refused.
        host: Address to listen on.
        port: Port to listen on; 0 for any that is free.
        callers: AE titles of the senders; empty for any.
        min_free_bytes: An instance is refused as out of resources rather than leave less space.

    Yields:
        The port.

    Raises:
        UsageError: The address cannot be listened on.
    """
    entity = AE(ae_title=title)
    entity.require_called_aet = True
    entity.require_calling_aet = sorted(callers)
    entity.maximum_associations = MOST_ASSOCIATIONS
    entity.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        assert context.abstract_syntax is not None  # each is of one SOP class
        entity.add_supported_context(context.abstract_syntax, [*SYNTAXES, *MORE_SYNTAXES])
    handlers: list[Any] = [(evt.EVT_C_STORE, _stored, [inbox, min_free_bytes])]
    try:
        server = entity.start_server((host, port), block=False, evt_handlers=handlers)
    except OSError as error:
        raise _no_port(host, port, error) from error
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        entity.shutdown()


def require_free_port(host: str, port: int) -> None:
    """Require an address that can be listened on, before anything is loaded or written for it.

    Raises:
        UsageError: Another program uses the port, or the address is none of this machine.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise _no_port(host, port, error) from error


def _no_port(host: str, port: int, error: OSError) -> UsageError:
    return UsageError(
        f"{host}:{port} cannot be listened on ({error.strerror}); end the program that uses the "
        "port, or choose another"
    )


def _stored(event: Any, inbox: Inbox, min_free_bytes: int) -> int:
    """In a thread of an association: keep one instance; answers with the DICOM status."""
    content = event.encoded_dataset()
    try:
        if free_bytes(inbox.root) - len(content) < min_free_bytes:
            log.warning("an instance was refused: too little space for received images")
            return OUT_OF_RESOURCES
        inbox.store(content, str(event.request.AffectedSOPInstanceUID))
    except ImageError as error:
        log.warning("an instance was refused: %s", error)
        return DOES_NOT_MATCH if error.reason == OTHER_INSTANCE else CANNOT_UNDERSTAND
    except OSError as error:
        log.warning("an instance was refused: it cannot be written (%s)", error.strerror)
        return OUT_OF_RESOURCES
    return SUCCESS


def inbox_of(out_dir: Path) -> Path:
    """Folder of the received images of a watch."""
    return out_dir / "inbox"
