"""DICOM identifiers that are functions of what they name."""

from __future__ import annotations

import uuid

from segmed.io.digest import sha256_of_text

_SPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:segmed:dicom")


def uid_from(*parts: str) -> str:
    """A DICOM UID made from text: equal parts give an equal UID, on every machine.

    Args:
        parts: What identifies the object, such as the source series and the model.

    Returns:
        `2.25.` and a 128-bit number.

    Source:
        DICOM PS3.5 annex B.2 (UUID derived UID); RFC 9562, version 5.
    """
    return f"2.25.{uuid.uuid5(_SPACE, chr(31).join(parts)).int}"


def short_hash(text: str) -> str:
    """Twelve hex digits that replace an identifier in messages."""
    return sha256_of_text(text, "surrogateescape")[:12]
