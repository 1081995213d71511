"""Serve the review page on this machine until it is stopped."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from pipelines.review import queue
from pipelines.review.access import SmallBodies, TokenPaths, new_token
from pipelines.review.app import MAX_JSON_BYTES, review_app
from pipelines.review.pages import ServedPage
from segmed.archive.review.archive import ReviewArchive
from segmed.errors import UsageError

LOOPBACK = "127.0.0.1"

PAGES = (ServedPage("queue", "Queue of the watch", queue.router, queue.has_queue),)
"""Pages beside the review; a page is added by adding its row."""


def listening(port: int) -> socket.socket:
    """A socket that listens on this machine alone.

    Args:
        port: The port; 0 for any that is free.

    Raises:
        UsageError: The port is in use, or may not be used.
    """
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((LOOPBACK, port))
        bound.listen()
    except OSError as error:
        bound.close()
        raise UsageError(
            f"port {port} cannot be used ({error.strerror}): choose another with --port, or leave "
            "it out"
        ) from error
    return bound


def address_of(bound: socket.socket, token: str) -> str:
    """Address of the page, with its token."""
    return f"http://{LOOPBACK}:{bound.getsockname()[1]}/{token}/"


def serve_review(
    out_dir: Path, *, author: str, port: int = 0, on_start: Callable[[str], None]
) -> None:
    """Serve an archive until the process is interrupted.

    Args:
        out_dir: Output folder of an archive run.
        author: Name that the page suggests for its reviewer.
        port: The port; 0 for any that is free.
        on_start: Called with the address of the page.
    """
    archive, token = ReviewArchive(out_dir), new_token()
    with listening(port) as bound:
        server = _server(archive, author, token, PAGES)
        on_start(address_of(bound, token))
        server.run(sockets=[bound])


@contextmanager
def served(out_dir: Path, author: str = "", pages: Sequence[ServedPage] = PAGES) -> Iterator[str]:
    """Serve an archive in a thread for as long as the context lasts.

    Args:
        out_dir: Output folder of an archive run.
        author: Name that the page suggests for its reviewer.
        pages: Pages beside the review.

    Yields:
        The address of the page.
    """
    archive, token = ReviewArchive(out_dir), new_token()
    with listening(0) as bound:
        server = _server(archive, author, token, pages)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        try:
            yield address_of(bound, token)
        finally:
            server.should_exit = True
            thread.join()


def _server(
    archive: ReviewArchive, author: str, token: str, pages: Sequence[ServedPage]
) -> uvicorn.Server:
    inner = SmallBodies(review_app(archive, author, pages), MAX_JSON_BYTES, "/corrections")
    app = TokenPaths(inner, token)
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            ws="none",
            lifespan="off",
        )
    )
