"""Access to the review page: the token in every path, this machine's names, and nothing else."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost", "[::1]")
"""Names by which a browser on this machine, or at the end of an SSH tunnel, reaches the page."""

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self' data: blob:; font-src 'self' data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
}

Start = Callable[[Message], Awaitable[None]]


def new_token() -> str:
    """A token that cannot be guessed."""
    return secrets.token_urlsafe(24)


class TokenPaths:
    """Serve an application below the path of a token, to pages of this machine alone.

    Every path begins with the token, so that no address, script or image is served without it, and
    no cookie is shared with other servers of this machine.

    Args:
        app: The application, whose paths begin behind the token.
        token: The token.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        fault = self._fault(scope)
        if fault:
            await _refuse(send, fault)
            return
        rest = scope["path"][len(self._token) + 1 :]
        inner = {**scope, "path": rest or "/", "raw_path": (rest or "/").encode()}
        await self._app(inner, receive, _with_headers(send))

    def _fault(self, scope: Scope) -> str:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if host.rpartition(":")[0] not in HOSTS and host not in HOSTS:
            return "this page is served to browsers of this machine alone"
        given = scope["path"].split("/", 2)
        token = given[1] if len(given) > 2 else ""
        if not secrets.compare_digest(token.encode("utf-8", "replace"), self._token.encode()):
            return "open the address that `segmed review` printed: it contains the token"
        origin = headers.get(b"origin")
        if origin is not None and origin != f"http://{host}":
            return "this page answers to itself alone"
        return ""


class SmallBodies:
    """Refuse bodies that are too long for a record, before they are read.

    Args:
        app: The application.
        most: Largest body, in bytes.
        except_for: End of the paths that check their bodies themselves.
    """

    def __init__(self, app: ASGIApp, most: int, except_for: str) -> None:
        self._app = app
        self._most = most
        self._except_for = except_for

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 411 or 413."""
        if scope["type"] == "http" and not scope["path"].endswith(self._except_for):
            headers = dict(scope["headers"])
            length = headers.get(b"content-length", b"0")
            if b"transfer-encoding" in headers or not length.isdigit():
                await _refuse(send, "the length of a request must be stated", 411)
                return
            if int(length) > self._most:
                await _refuse(send, f"a record has at most {self._most} bytes", 413)
                return
        await self._app(scope, receive, send)


def _with_headers(send: Send) -> Start:
    async def started(message: Message) -> None:
        if message["type"] == "http.response.start":
            added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return started


async def _refuse(send: Send, message: str, status: int = 403) -> None:
    body = f"segmed: {message}\n".encode()
    start: MutableMapping[str, Any] = {
        "type": "http.response.start",
        "status": status,
        "headers": [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
        ],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body})
