"""Cards of packages that an older segmed wrote, brought to today's form while they are read.

The files stay as they are, and so does a package's hash: it names what the package computes, not
the form of its card. So a package of last year keeps its name in every ledger and registry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from segmed.errors import PackageError

SCHEMA_VERSION = 2
"""Version of the card's form."""

Content = dict[str, Any]


def _name_the_writer(content: Content) -> Content:
    """Add which segmed wrote the package; version 1 had it in the provenance at best."""
    provenance = content.get("provenance")
    stated = provenance.get("versions") if isinstance(provenance, dict) else None
    writer = stated.get("segmed", "") if isinstance(stated, dict) else ""
    return {**content, "segmed": str(writer)}


STEPS: dict[int, Callable[[Content], Content]] = {1: _name_the_writer}
"""What brings a card from a version to the next one."""

KNOWN = (*STEPS, SCHEMA_VERSION)


def upgraded(content: object, where: str) -> Content:
    """A card's content in today's form.

    Args:
        content: Content of `package.json`.
        where: Name of the package, for the error.

    Raises:
        PackageError: The card is of a later version than this segmed reads, or of none.
    """
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(content, dict) or type(version) is not int or version not in KNOWN:
        raise PackageError(
            f"{where} has package schema version {version!r}, this segmed reads {min(STEPS)} to "
            f"{SCHEMA_VERSION}; use the segmed that wrote it, or export the model again"
        )
    for step in range(version, SCHEMA_VERSION):
        content = STEPS[step](content)
    return {**content, "schema_version": SCHEMA_VERSION}
