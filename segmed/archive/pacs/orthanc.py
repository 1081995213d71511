"""Orthanc's own interface beside its DICOMweb plugin: its list of changes, and removal of results.

Source:
    The Orthanc Book, "REST API of Orthanc": `/changes`, `/tools/lookup`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from segmed.archive.pacs.dicomweb import NOT_FOUND, TIMEOUT_S, DicomWeb, StowDelivery
from segmed.errors import RefusedRequestError


@dataclass(frozen=True)
class OrthancServer:
    """An Orthanc.

    Attributes:
        service: Its DICOMweb service.
        root: Root of its own interface.
    """

    service: DicomWeb
    root: str

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """JSON answer to a request; None where there is no such object.

        Args:
            method: Such as `GET`.
            path: Such as `/changes`.
            options: As `requests.Session.request` takes them.

        Raises:
            ServiceError: The server does not answer, or refuses.
        """

        def call() -> Any:
            with self.service.talking(f"answer {path.split('/')[1]} (is it an Orthanc?)"):
                reply = self.service.session.request(
                    method, self.root + path, timeout=TIMEOUT_S, **options
                )
                reply.raise_for_status()
                return reply.json()

        try:
            return self.service.retry.call(call)
        except RefusedRequestError as error:
            response = getattr(error.__cause__, "response", None)
            if response is not None and response.status_code == NOT_FOUND:
                return None
            raise


@dataclass(frozen=True)
class OrthancDelivery(StowDelivery):
    """Delivers to an Orthanc by STOW-RS, and withdraws what a newer result replaces.

    Attributes:
        server: The Orthanc; `service` is its DICOMweb service.
    """

    server: OrthancServer

    def withdraw(self, address: str) -> None:
        """Remove what was delivered under an address; nothing if it is gone.

        Args:
            address: SOPInstanceUID; behind those of study and series where it came by C-STORE.

        Raises:
            ServiceError: The server does not answer, or refuses.
        """
        for found in (
            self.server.ask("POST", "/tools/lookup", data=address.rpartition("/")[2]) or ()
        ):
            if found.get("Type") == "Instance":
                self.server.ask("DELETE", f"/instances/{found['ID']}")
