"""Pages beside the review: behind the same token, with a link on the page if there is a use."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from chromium import Chromium
from fastapi import APIRouter, Request
from sending import at, send

from pipelines.review.access import HEADERS
from pipelines.review.pages import ServedPage
from pipelines.review.server import PAGES, served
from segmed.archive.watch.snapshot import Snapshot, SnapshotFile

extra = APIRouter()


@extra.get("/extra")
def page(request: Request) -> dict[str, str]:
    """A page that names its archive."""
    return {"archive": request.app.state.archive.out_dir.name}


ROWS = (
    ServedPage("extra", "Extra", extra),
    ServedPage("empty", "Nothing", APIRouter(), is_shown=lambda archive: False),
)


def test_page_of_the_table_is_served_behind_the_token_alone(out: Path) -> None:
    with served(out, "Ada", pages=ROWS) as address:
        assert send(address, at(address, "extra")) == (200, b'{"archive":"out"}')
        for path in ("/extra", "/x/extra", f"{urlsplit(address).path[:-2]}/extra"):
            assert send(address, path)[0] == 403
        evil = {"Host": "evil.example"}
        assert send(address, at(address, "extra"), headers=evil)[0] == 403
        assert "default-src 'none'" in HEADERS["content-security-policy"]


@pytest.mark.integration
def test_link_is_shown_where_the_page_has_something_to_show(out: Path, browser: Chromium) -> None:
    links = "[...document.querySelectorAll('#pages a')].map((a) => [a.textContent, a.href])"
    with served(out, "Ada", pages=ROWS) as address, browser.page() as found:
        found.go(address)
        assert found.run(links) == [["Extra", f"{address}extra"]]
    with served(out, "Ada") as address, browser.page() as found:
        found.resize(1400, 850)
        found.go(address)
        assert found.run("document.getElementById('pages').hidden")  # no watch, no queue
        SnapshotFile(out).write(Snapshot(True))
        found.go(address)
        assert found.run(links) == [["Queue of the watch", f"{address}queue"]]
        found.click("#pages a")
        found.wait_for("document.title === 'Queue of the watch'")


def test_paths_of_pages_are_their_own() -> None:
    paths = [row.path for row in PAGES]
    assert len(set(paths)) == len(paths)
    assert not {"api", "assets", ""} & set(paths)
