"""Addresses of a watch: where our DICOM node listens, or the server that is watched.

```
dimse://SEGMED@0.0.0.0:11112            receive as the node SEGMED on this port of every network
dimse://SEGMED@:11112?from=PACS,CT1     the same, from these AE titles only
orthanc://user@host:8042                an Orthanc with its DICOMweb plugin: studies it calls stable
orthancs://host                         the same over TLS
dicomweb://host:8080/dicom-web          any other PACS with DICOMweb: studies that stop growing
dicomwebs://host/dicom-web              the same over TLS
```
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from segmed.archive.pacs.address import (
    EVERYWHERE,
    ORTHANCS,
    SCHEMES,
    open_address,
    orthanc_at,
    require_sound,
)
from segmed.archive.pacs.dicomweb import DicomWeb
from segmed.archive.pacs.orthanc import OrthancServer
from segmed.errors import UsageError, unknown_name

KINDS = ("dimse", *ORTHANCS, *SCHEMES)
PORT = 11112
"""Port that DICOM registered for nodes without special rights."""


@dataclass(frozen=True)
class NodeAddress:
    """Address of our DICOM node.

    Attributes:
        title: Our AE title.
        host: Address to listen on.
        port: Port to listen on.
        callers: AE titles of the senders; empty for any.
    """

    title: str
    host: str
    port: int
    callers: tuple[str, ...] = ()


def watched_address(address: str) -> NodeAddress | OrthancServer | DicomWeb:
    """The node or server that an address of a watch describes.

    Raises:
        UsageError: It is incomplete, or of an unknown kind.
    """
    require_sound(address)
    parts = urlsplit(address)
    if "://" not in address or parts.scheme not in KINDS:
        raise unknown_name("kind of address", parts.scheme or address, KINDS)
    if parts.scheme == "dimse":
        return _node_address(address)
    service = open_address(address)
    assert isinstance(service, DicomWeb)  # the address is none of a node
    return orthanc_at(address) or service


def _node_address(address: str) -> NodeAddress:
    """The DICOM node that an address describes.

    Raises:
        UsageError: It is incomplete, or of an unknown kind.
    """
    parts = urlsplit(address)
    if not parts.username:
        raise UsageError(
            f"{address!r} names no AE title: write dimse://TITLE@HOST:PORT, the title and the "
            "address that senders use"
        )
    options = parse_qs(parts.query)
    unknown = sorted(options.keys() - {"from"})
    if unknown:
        raise unknown_name("option of a dimse:// address of a watch", unknown[0], ["from"])
    callers = tuple(name for text in options.get("from", ()) for name in text.split(",") if name)
    for name in callers:
        require_sound(f"dimse://{name}@host")
    return NodeAddress(parts.username, parts.hostname or EVERYWHERE, parts.port or PORT, callers)
