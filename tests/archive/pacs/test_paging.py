"""A listing of a PACS is complete, or an error, however the server pages it."""

from __future__ import annotations

import pytest

from segmed.archive.pacs.paging import PAGE, Page, all_entries
from segmed.errors import RefusedRequestError


class Server:
    """A server of `total` entries with one habit each.

    Args:
        total: Entries it holds.
        cap: Entries it sends at most.
        warns: Whether it announces what it left out.
        ignores: `offset` or `limit`, which it does not look at.
        repeats: Entries of the page before that it sends again with every page.
    """

    def __init__(
        self,
        total: int,
        *,
        cap: int = 10**9,
        warns: bool = False,
        ignores: str = "",
        repeats: int = 0,
    ) -> None:
        self.rows = [str(n) for n in range(total)]
        self.cap, self.warns, self.ignores, self.repeats = cap, warns, ignores, repeats
        self.asked: list[tuple[int, int]] = []

    def __call__(self, limit: int, offset: int) -> Page:
        self.asked.append((limit, offset))
        start = 0 if self.ignores == "offset" else max(0, offset - self.repeats)
        size = min(len(self.rows) if self.ignores == "limit" else limit, self.cap)
        page = self.rows[start : start + size]
        return Page(page, self.warns and start + len(page) < len(self.rows))


def listed(server: Server) -> list[str]:
    return list(all_entries(server, str, what="studies"))


@pytest.mark.parametrize("total", [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE + 7])
@pytest.mark.parametrize(
    "habit",
    [
        {},
        {"cap": 12},
        {"cap": 12, "warns": True},
        {"ignores": "limit"},
        {"repeats": 5},
        {"cap": 40, "repeats": 3, "warns": True},
        {"ignores": "offset"},
    ],
)
def test_every_entry_is_listed_once(total: int, habit: dict[str, object]) -> None:
    server = Server(total, **habit)
    assert listed(server) == server.rows
    assert len(server.asked) < 100


@pytest.mark.parametrize(("total", "cap"), [(30, 12), (250, 100), (13, 12)])
def test_server_that_caps_ignores_offsets_and_admits_it_is_an_error(total: int, cap: int) -> None:
    server = Server(total, cap=cap, warns=True, ignores="offset")
    with pytest.raises(RefusedRequestError, match=f"lists {cap} studies .* ignores the offset"):
        listed(server)
    assert len(server.asked) < 10


def test_entry_without_identifier_is_an_error() -> None:
    with pytest.raises(RefusedRequestError, match="without their identifiers"):
        list(all_entries(lambda limit, offset: Page([""]), str, what="series"))
