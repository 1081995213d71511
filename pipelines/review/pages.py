"""Further pages of the review server, such as the queue of a watched PACS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import APIRouter

from segmed.archive.review.archive import ReviewArchive


def _always(archive: ReviewArchive) -> bool:
    return True


@dataclass(frozen=True)
class ServedPage:
    """A page beside the review, behind the same token; `PAGES` in `server.py` lists them.

    Its routes read `request.app.state.archive`. Its files are answered by routes of its own: only
    scripts and styles of this server run, and inline ones do not.

    Attributes:
        path: Its path below the address of the review; other routes of it are below `api/`.
        title: Text of the link to it.
        router: Its routes.
        is_shown: Returns whether an archive has something for it to show.
    """

    path: str
    title: str
    router: APIRouter
    is_shown: Callable[[ReviewArchive], bool] = _always
