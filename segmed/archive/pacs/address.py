"""Archives by address: `dicomweb://`, `orthanc://` (with an s: over TLS) and `dimse://`.

```
dicomweb://user@host:8042/dicom-web     http://host:8042/dicom-web
dicomwebs://host/dicom-web              https://host/dicom-web
orthanc://user@host:8042                an Orthanc, whose DICOMweb is at /dicom-web; orthancs: TLS
dimse://PACS@host:104                   the node PACS; `?calling=SEGMED` says who we are
dimse://PACS@host:104?move=11112        C-MOVE to port 11112 here, where C-GET is not offered
```
A password comes from the environment variable `SEGMED_DICOMWEB_PASSWORD`, never from the address,
since addresses are seen in process lists and histories.
"""

from __future__ import annotations

import os
from urllib.parse import parse_qs, urlsplit

from segmed.archive.pacs.delivery import Delivery
from segmed.archive.pacs.dicomweb import DicomWeb, DicomWebSource, StowDelivery
from segmed.archive.pacs.dimse import Dimse, DimseSource, StoreDelivery
from segmed.archive.pacs.orthanc import OrthancDelivery, OrthancServer
from segmed.archive.pacs.remote import Query
from segmed.archive.pacs.tls import Tls
from segmed.archive.study import StudySource
from segmed.errors import UsageError, unknown_name
from segmed.package.series_rules import Rules

TITLE_LENGTH = 16
"""Most letters of an AE title (DICOM PS3.5, 6.2)."""

SCHEMES = {"dicomweb": "http", "dicomwebs": "https"}
PASSWORD_VARIABLE = "SEGMED_DICOMWEB_PASSWORD"  # noqa: S105 - the variable's name
ORTHANCS = {"orthanc": "dicomweb", "orthancs": "dicomwebs"}
ORTHANC_DICOMWEB = "/dicom-web"
"""Path of Orthanc's DICOMweb plugin, unless the address has another."""

DICOM_PORT = 104
CALLING = "SEGMED"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - a PACS sends from another machine
NODE_OPTIONS = frozenset({"calling", "move"})


def open_address(address: str) -> DicomWeb | Dimse:
    """The service that an address names; nothing is sent yet.

    Raises:
        UsageError: The address is incomplete, carries a password, or is of an unknown kind.
    """
    require_sound(address)
    parts = urlsplit(address)
    if parts.password is not None:
        raise UsageError(
            f"the address carries a password, which others could see; set {PASSWORD_VARIABLE}"
        )
    if parts.scheme in ORTHANCS:
        path = parts.path.rstrip("/") or ORTHANC_DICOMWEB
        return open_address(parts._replace(scheme=ORTHANCS[parts.scheme], path=path).geturl())
    if parts.scheme not in {*SCHEMES, "dimse"}:
        raise unknown_name("kind of archive", parts.scheme, [*SCHEMES, *ORTHANCS, "dimse"])
    if not parts.hostname:
        raise UsageError(f"{address!r} names no host; write {parts.scheme}://HOST:PORT/...")
    if parts.scheme == "dimse":
        if not parts.username:
            raise UsageError(f"{address!r} names no AE title; write dimse://TITLE@HOST:PORT")
        return _node(address)
    port = f":{parts.port}" if parts.port else ""
    return DicomWeb(
        f"{SCHEMES[parts.scheme]}://{parts.hostname}{port}{parts.path.rstrip('/')}",
        user=parts.username or "",
        password=os.environ.get(PASSWORD_VARIABLE, ""),
        tls=Tls.from_environment(),
    )


def orthanc_at(address: str) -> OrthancServer | None:
    """The Orthanc that an address names; None if it is an address of another kind.

    Raises:
        UsageError: The address cannot be used.
    """
    service, parts = open_address(address), urlsplit(address)
    if parts.scheme not in ORTHANCS or not isinstance(service, DicomWeb):
        return None
    return OrthancServer(
        service, service.url.removesuffix(parts.path.rstrip("/") or ORTHANC_DICOMWEB)
    )


def _node(address: str) -> Dimse:
    """The DICOM node that an address names."""
    parts = urlsplit(address)
    options = parse_qs(parts.query)
    unknown = sorted(options.keys() - NODE_OPTIONS)
    if unknown:
        raise unknown_name("option of a dimse:// address", unknown[0], sorted(NODE_OPTIONS))
    host, _, port = options.get("move", [""])[0].rpartition(":")
    if "move" in options and not port.isdigit():
        raise UsageError(
            f"{address!r}: move={options['move'][0]} is not a port; write move=PORT or "
            "move=HOST:PORT, the address that the PACS has on file for our AE title"
        )
    return Dimse(
        str(parts.hostname),
        parts.port or DICOM_PORT,
        str(parts.username),
        options.get("calling", [CALLING])[0],
        listen=(host or EVERYWHERE, int(port)) if port else None,
    )


def source_at(
    address: str, *, query: Query, num_channels: int = 1, rules: Rules | None = None
) -> StudySource:
    """The studies of the archive at an address.

    Raises:
        UsageError: The address cannot be used.
    """
    service = open_address(address)
    if isinstance(service, Dimse):
        return DimseSource(service, query, num_channels, rules)
    return DicomWebSource(service, query, num_channels, rules)


def delivery_at(address: str) -> Delivery:
    """Return the delivery of segmentations to the archive at an address.

    Raises:
        UsageError: The address cannot be used.
    """
    orthanc = orthanc_at(address)
    if orthanc is not None:
        return OrthancDelivery(orthanc.service, orthanc)
    service = open_address(address)
    return StoreDelivery(service) if isinstance(service, Dimse) else StowDelivery(service)


def require_sound(address: str) -> None:
    """Refuse an invalid address without repeating its text, which may contain a password.

    Raises:
        UsageError: It has spaces or line ends, or an invalid host, port or AE title.
    """
    if not address.isprintable() or " " in address:
        raise UsageError("an address must not contain spaces or line ends; remove them")
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"no address: {error}; write SCHEME://HOST:PORT/...") from None
    if port == 0:
        raise UsageError(
            "invalid address: port 0; the port must be 1 to 65535; write SCHEME://HOST:PORT/..."
        )
    if parts.scheme == "dimse":
        for title in (parts.username or CALLING, *parse_qs(parts.query).get("calling", ())):
            if not title.isascii() or len(title) > TITLE_LENGTH:
                raise UsageError(
                    f"invalid AE title {title!r}: at most {TITLE_LENGTH} ASCII letters"
                )
