"""Authentication with a DICOMweb service: tokens and certificates.

| variable | what it names |
|---|---|
| `SEGMED_DICOMWEB_TOKEN` | a bearer token, sent with every request |
| `SEGMED_DICOMWEB_CERT` | our client certificate (PEM; with its key, unless the next is set) |
| `SEGMED_DICOMWEB_KEY` | its private key |
| `SEGMED_DICOMWEB_CA` | the authorities that are believed, in place of the public ones |
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import requests

from segmed.errors import UsageError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
PREFIX = "SEGMED_DICOMWEB_"


@dataclass(frozen=True)
class Tls:
    """Proofs of identity; nothing of it is ever shown.

    Attributes:
        token: Bearer token; empty for none.
        certificate: Our certificate, PEM; None for none.
        key: Its private key; None where it is in the certificate's file.
        authorities: Certificates of authorities, PEM; None for the public ones.
    """

    token: str = field(default="", repr=False)
    certificate: Path | None = None
    key: Path | None = None
    authorities: Path | None = None

    @classmethod
    def from_environment(cls) -> Self:
        """Read the credentials that the environment names.

        Raises:
            UsageError: A file that it names is missing, or a key comes without a certificate.
        """
        certificate, key, authorities = (_file(name) for name in ("CERT", "KEY", "CA"))
        if key is not None and certificate is None:
            raise UsageError(f"{PREFIX}KEY is set without {PREFIX}CERT; set both")
        return cls(os.environ.get(f"{PREFIX}TOKEN", ""), certificate, key, authorities)

    def apply_to(self, session: requests.Session, url: str) -> None:
        """Let a session use them.

        Raises:
            UsageError: A token would travel in the clear to another machine.
        """
        if self.token:
            parts = urlsplit(url)
            if parts.scheme != "https" and parts.hostname not in LOOPBACK:
                raise UsageError("a token is not sent in the clear; write dicomwebs://")
            session.headers["Authorization"] = f"Bearer {self.token}"
        if self.certificate is not None and self.key is not None:
            session.cert = (str(self.certificate), str(self.key))
        elif self.certificate is not None:
            session.cert = str(self.certificate)
        if self.authorities is not None:
            session.verify = str(self.authorities)


def _file(name: str) -> Path | None:
    value = os.environ.get(PREFIX + name)
    if not value:
        return None
    path = Path(value)
    if not path.is_file():
        raise UsageError(f"{PREFIX}{name} names {path}, which is not a file; set it to a PEM file")
    return path
