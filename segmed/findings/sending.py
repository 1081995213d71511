"""Reports sent to an address: HL7 v2 over MLLP, FHIR over HTTP.

```
mllp://host:2575                HL7 messages, each acknowledged before the next
fhir://host:8080/fhir           http://host:8080/fhir
fhirs://host/fhir               https://host/fhir
```
A token for FHIR comes from the environment variable `SEGMED_FHIR_TOKEN`, never from the address.

Source:
    HL7 v2.5.1, 2.9.2 (acknowledgement); MLLP, release 1; HL7 FHIR R4, 3.1.0 (transaction).
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import requests

from segmed.errors import (
    AccessDeniedError,
    RefusedRequestError,
    ServiceError,
    UsageError,
    unknown_name,
)
from segmed.formats import ReportKind

TIMEOUT_S = 30.0
START, END = b"\x0b", b"\x1c\r"
MOST_ACKNOWLEDGEMENT = 1 << 16
"""Bytes of the longest acknowledgement that is read."""

MLLP_PORT = 2575
TOKEN_VARIABLE = "SEGMED_FHIR_TOKEN"  # noqa: S105 - the variable's name
SCHEMES = {"fhir": "http", "fhirs": "https"}
DENIED = frozenset({401, 403, 407})
PASSING = frozenset({408, 425, 429})
"""HTTP states of 4xx that waiting may mend; all others are final."""


class ReportSender(Protocol):
    """A place that takes one kind of report.

    Attributes:
        kind: The kind.
    """

    @property
    def kind(self) -> ReportKind: ...  # noqa: D102 - see above

    def send(self, path: Path) -> None:
        """Send a report; a second delivery of it replaces the first, or is known as the same.

        Raises:
            ServiceError: The place does not answer, or refuses the report.
        """
        ...


@dataclass(frozen=True)
class MllpSender:
    """Sends HL7 v2 messages and waits for each acknowledgement.

    Attributes:
        host: Host of the receiver.
        port: Its port.
    """

    host: str
    port: int
    kind: ReportKind = "hl7"

    def send(self, path: Path) -> None:
        """Send one message.

        Raises:
            ServiceError: The receiver does not answer, or acknowledges an error that may pass.
            RefusedRequestError: It rejects the message for good.
        """
        try:
            with socket.create_connection((self.host, self.port), timeout=TIMEOUT_S) as line:
                line.settimeout(TIMEOUT_S)
                line.sendall(START + path.read_bytes() + END)
                answer = _answer_on(line)
        except OSError as error:
            raise ServiceError(
                f"the HL7 receiver at {self.host}:{self.port} does not answer "
                f"({type(error).__name__})"
            ) from error
        _require_accepted(answer)


def _answer_on(line: socket.socket) -> bytes:
    """The acknowledgement, without its frame; as much of it as came before the line was closed."""
    got = b""
    while END not in got and len(got) < MOST_ACKNOWLEDGEMENT:
        part = line.recv(4096)
        if not part:
            break
        got += part
    return got.partition(END)[0].lstrip(START)


def _require_accepted(answer: bytes) -> None:
    fields = next(
        (part.split(b"|") for part in answer.split(b"\r") if part.startswith(b"MSA|")), [b""]
    )
    code = fields[1].decode("ascii", "replace") if len(fields) > 1 else ""
    if code in ("AA", "CA"):
        return
    if code in ("AR", "CR"):
        raise RefusedRequestError(f"the HL7 receiver rejects the message ({code})")
    raise ServiceError(f"the HL7 receiver did not take the message ({code or 'no MSA segment'})")


@dataclass(frozen=True)
class FhirSender:
    """Posts bundles to a FHIR server, each as one transaction.

    Attributes:
        url: Base address of the server.
        token: Bearer token; empty for none.
    """

    url: str
    token: str = ""
    kind: ReportKind = "fhir"

    def send(self, path: Path) -> None:
        """Post one bundle: the server stores all of it or nothing.

        Raises:
            ServiceError: The server does not answer.
            AccessDeniedError: It refuses the caller.
            RefusedRequestError: It refuses the bundle.
        """
        headers = {"Content-Type": "application/fhir+json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            reply = requests.post(
                self.url, data=path.read_bytes(), headers=headers, timeout=TIMEOUT_S
            )
        except requests.RequestException as error:
            kind = type(error).__name__
            raise ServiceError(f"the FHIR server does not answer ({kind})") from error
        state = reply.status_code
        if state in DENIED:
            raise AccessDeniedError(
                f"the FHIR server refuses the caller ({state}); set {TOKEN_VARIABLE}"
            )
        if 400 <= state < 500 and state not in PASSING:
            raise RefusedRequestError(f"the FHIR server refuses the observations ({state})")
        if state >= 300:
            raise ServiceError(f"the FHIR server answers {state}")


def report_sender_at(address: str) -> MllpSender | FhirSender:
    """The place that an address names; nothing is sent yet.

    Raises:
        UsageError: The address is incomplete, carries a password, or is of an unknown kind.
    """
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"no address: {error}; write mllp://HOST:PORT or fhir://HOST/..") from None
    if parts.scheme not in {"mllp", *SCHEMES}:
        raise unknown_name("kind of report address", parts.scheme, ["mllp", *SCHEMES])
    if parts.password is not None or parts.username is not None:
        raise UsageError(
            f"the address names a user or password, which others could see; set {TOKEN_VARIABLE}"
        )
    if not parts.hostname or port == 0:
        raise UsageError(f"{address!r} names no host and port; write {parts.scheme}://HOST:PORT")
    if parts.scheme == "mllp":
        return MllpSender(parts.hostname, port or MLLP_PORT)
    place = f"{parts.hostname}:{port}" if port else parts.hostname
    url = f"{SCHEMES[parts.scheme]}://{place}{parts.path.rstrip('/') or '/'}"
    return FhirSender(url, os.environ.get(TOKEN_VARIABLE, ""))
