"""Complete answers to a paged query, or an error: a server's statements on pages are not trusted.

Servers cap pages below what is requested, ignore offsets or limits, repeat entries while studies
arrive, and announce in a Warning header that they have more than they sent.

Source:
    DICOM PS3.18, 8.3.4 (offset, limit) and 8.3.4.4.1 (Warning 299 for results left out).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from segmed.errors import RefusedRequestError

PAGE = 100
"""Entries requested at once."""

LARGEST_PAGE = 100_000
"""Entries requested at once of a server that ignores offsets."""


@dataclass(frozen=True)
class Page:
    """One answer of a server.

    Attributes:
        entries: The entries.
        has_more: The server announces that it has more than it sent.
    """

    entries: list[Any]
    has_more: bool = False


def all_entries(
    fetch_page: Callable[[int, int], Page], key: Callable[[Any], str], *, what: str
) -> Iterator[Any]:
    """Every entry of a query once, asking until a page brings nothing new.

    Args:
        fetch_page: Answer for a limit and an offset.
        key: Identifier of an entry.
        what: Kind of the entries, for messages.

    Yields:
        Entries in the server's order, repeated ones left out.

    Raises:
        RefusedRequestError: The listing cannot be completed, or an entry has no identifier.
    """
    seen: set[str] = set()
    limit, offset = PAGE, 0
    while True:
        page = fetch_page(limit, offset)
        fresh = []
        for entry in page.entries:
            name = key(entry)
            if not name:
                raise RefusedRequestError(f"the service lists {what} without their identifiers")
            if name not in seen:
                seen.add(name)
                fresh.append(entry)
        yield from fresh
        if not page.entries and not page.has_more:
            return
        if fresh:
            offset += len(page.entries)
            continue
        # Nothing new: the end, of a server that repeats its last page or ignores offsets.
        if len(page.entries) < limit and not page.has_more:
            return
        if limit >= LARGEST_PAGE:
            raise RefusedRequestError(
                f"the service lists {len(seen)} {what} and does not send the rest: it ignores the "
                "offset of a query; narrow the query by --since and --until"
            )
        limit, offset = limit * 10, 0
