"""Receive the images that a DICOM node sends: in answer to C-GET, or to C-MOVE by itself.

A node that is asked by C-MOVE opens a connection of its own to the address that it has on file for
our AE title; so we listen there while we wait for a series, and take nothing else.

Source:
    DICOM PS3.4, annexes B (Storage) and C.4.2 (C-MOVE).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.transport import ThreadedAssociationServer

from segmed.errors import ServiceError
from segmed.io.dicom.uid import short_hash

SUCCESS = 0x0000
NOT_AUTHORISED = 0x0124

IMAGE_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.130",
    "1.2.840.10008.5.1.4.1.1.20", "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.6.1",
    "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7",
)  # fmt: skip
"""Objects that are fetched: CT, MR, PET, NM, their enhanced forms, plain pictures, and
segmentations, which readers have corrected."""

SYNTAXES = (
    "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.5",
)  # fmt: skip
"""Encodings that intake can decode, the plain ones first."""


def keep(event: Any, inbox: Path) -> int:
    """Write one image that a node sends, as it came; answers with the DICOM status."""
    name = short_hash(str(event.request.AffectedSOPInstanceUID))
    (inbox / f"{name}.dcm").write_bytes(event.encoded_dataset())
    return SUCCESS


class Receiver:
    """Listens for images while a series is expected; `receiver_at` gives one an address.

    Args:
        host: Address to listen at; `0.0.0.0` for every network of this machine.
        port: Port to listen at.
        title: Our AE title; nodes that call another one are refused.
    """

    def __init__(self, host: str, port: int, title: str) -> None:
        self._place = (host, port)
        self._title = title
        self._lock = threading.Lock()
        self._inboxes: dict[str, Path] = {}
        self._server: ThreadedAssociationServer | None = None

    @contextmanager
    def expecting(self, series_uid: str, inbox: Path) -> Iterator[None]:
        """Within the block, images of a series are taken into a folder.

        Raises:
            ServiceError: The address cannot be listened at.
        """
        with self._lock:
            if self._server is None:
                self._server = self._listen()
            self._inboxes[series_uid] = inbox
        try:
            yield
        finally:
            with self._lock:
                del self._inboxes[series_uid]
                if not self._inboxes:
                    self._server.shutdown()
                    self._server = None

    def _listen(self) -> ThreadedAssociationServer:
        entity = AE(ae_title=self._title)
        entity.require_called_aet = True
        for sop_class in IMAGE_CLASSES:
            entity.add_supported_context(sop_class, list(SYNTAXES))
        try:
            server = entity.start_server(
                self._place, block=False, evt_handlers=[(evt.EVT_C_STORE, self._take)]
            )
        except OSError as error:
            raise ServiceError(
                f"port {self._place[1]} cannot be listened at for C-MOVE ({error.strerror}); end "
                "the program that uses it, or use C-GET (an address without `move`)"
            ) from error
        return server

    def _take(self, event: Any) -> int:
        inbox = self._inboxes.get(str(event.dataset.get("SeriesInstanceUID", "")))
        return NOT_AUTHORISED if inbox is None else keep(event, inbox)


@cache
def receiver_at(host: str, port: int, title: str) -> Receiver:
    """The one receiver of this process at an address."""
    return Receiver(host, port, title)
