"""The server of the review page: nothing without the token, 4xx for hostile requests."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from sending import at, send

from pipelines.review.app import TYPES, router
from pipelines.review.server import PAGES
from segmed.archive.review.archive import ReviewArchive

SESSION = "session-1"


def tree(out: Path) -> dict[str, bytes]:
    """Every file of a folder with its content, but for the journals of SQLite."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm", "-journal"))
    }


def keys_of(out: Path) -> list[str]:
    """Keys of the studies."""
    return [study.entry.key for study in ReviewArchive(out).studies()]


def paths_of_all_routes(key: str) -> list[tuple[str, str]]:
    """Method and path of every route."""
    fields = {"{key}": key, "{name}": "result"}
    found = []
    for route in [*router.routes, *(one for page in PAGES for one in page.router.routes)]:
        path = route.path
        for field, value in fields.items():
            path = path.replace(field, value)
        found += [(method, path) for method in route.methods]
    return found


def test_no_route_answers_without_the_token(out: Path, address: str) -> None:
    key = keys_of(out)[0]
    routes = paths_of_all_routes(key)
    assert len(routes) >= 10
    token = urlsplit(address).path.strip("/")
    for method, path in [*routes, ("GET", "/docs"), ("GET", "/openapi.json")]:
        for wrong in ("", "/" + "x" * len(token), f"/{token[:-1]}", f"/{token}x", f"//{token}"):
            status, body = send(address, wrong + path, method=method, body={})
            assert status == 403, (method, wrong + path)
            assert key.encode() not in body
            assert token.encode() not in body
    assert send(address, f"/?token={token}")[0] == 403
    assert send(address, "/", headers={"Cookie": f"token={token}"})[0] == 403
    assert send(address, at(address, ""))[0] == 200


def test_pages_of_other_sites_and_names_of_other_hosts_are_refused(out: Path, address: str) -> None:
    path, host = at(address, "api/studies"), urlsplit(address).netloc
    assert send(address, path)[0] == 200
    assert send(address, path, headers={"Origin": f"http://{host}"})[0] == 200
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        assert send(address, path, headers={"Origin": origin})[0] == 403
    for name in ("evil.example", "evil.example:80", "127.0.0.1.evil.example:80", ""):
        assert send(address, path, headers={"Host": name})[0] in {400, 403}
    assert send(address, path, headers={"Host": "localhost:8765"})[0] == 200


HOSTILE_PATHS = (
    "assets/../app.py", "assets/..%2fapp.py", "assets/%2e%2e/app.py", "assets//etc/passwd",
    "assets/%2fetc%2fpasswd", "assets/review.html%00.js", "assets/", "assets/page.js/..",
    "../../etc/passwd", "api/studies/../../ledger.sqlite", "api/studies/..%2f..%2fledger.sqlite",
    "api/studies/" + "0" * 64, "api/studies/" + "Z" * 64, "api/studies/x';DROP TABLE studies;--",
    "api/studies/KEY/maps/..%2f..%2fledger.sqlite", "api/studies/KEY/maps/c999",
    "api/studies/KEY/maps/c1'%20OR%201=1", "api/studies/KEY/maps/" + "0" * 64,
    "api/studies/KEY/image?channel=1", "api/studies/KEY/image?channel=-1",
    "api/studies/KEY/image?channel=1e9", "api/studies/KEY/image?channel=x", "docs",
    "openapi.json", "api/studies/" + "a" * 5000,
)  # fmt: skip


def test_hostile_paths_get_4xx_and_touch_nothing(out: Path, address: str) -> None:
    key = keys_of(out)[0]
    before = tree(out)
    for path in HOSTILE_PATHS:
        status, body = send(address, at(address, path.replace("KEY", key)).replace(" ", "%20"))
        assert 400 <= status < 500, path
        assert b"root:" not in body
        assert b"Traceback" not in body
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert 400 <= send(address, at(address, f"api/studies/{key}"), method=method)[0] < 500
    assert tree(out) == before


def raw(address: str, head: list[str], body: bytes = b"") -> int:
    """Status of a request that is sent byte for byte."""
    parts = urlsplit(address)
    lines = [*head, f"Host: {parts.netloc}", "Connection: close", "", ""]
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as line:
        line.sendall("\r\n".join(lines).encode() + body)
        answer = line.makefile("rb").readline()
    return int(answer.split()[1])


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        (["Transfer-Encoding: chunked"], b"2\r\n{}\r\n0\r\n\r\n"),
        (["Content-Length: 99999999999999"], b"{}"),
        (["Content-Length: -1"], b"{}"),
        (["Content-Length: many"], b"{}"),
        (["Content-Length: 2", "Content-Length: 3"], b"{}"),
    ],
)
@pytest.mark.parametrize("route", ["hold", "opinions", "corrections?author=Ada&session=session-1"])
def test_bodies_of_no_stated_or_no_possible_length_get_4xx(
    out: Path, address: str, route: str, lines: list[str], body: bytes
) -> None:
    key = keys_of(out)[0]
    path = at(address, f"api/studies/{key}/{route}")
    assert 400 <= raw(address, [f"POST {path} HTTP/1.1", *lines], body) < 500
    assert ReviewArchive(out).store.holds() == {}
    assert ReviewArchive(out).store.opinions() == ReviewArchive(out).store.corrections() == []


def test_endless_label_map_is_refused_when_it_is_longer_than_the_image(
    out: Path, address: str
) -> None:
    archive = ReviewArchive(out)
    study = archive.studies()[0]
    size = 2 * int(np.prod(archive.result(study).shape))
    path = at(address, f"api/studies/{study.entry.key}/corrections?author=Ada&session=session-1")
    chunk = b"%x\r\n" % (size + 2) + b"\0" * (size + 2) + b"\r\n"
    status = raw(address, [f"POST {path} HTTP/1.1", "Transfer-Encoding: chunked"], chunk)
    assert status == 413
    assert archive.store.corrections() == []


GOOD = {"session": SESSION, "author": "Ada"}
HOSTILE_BODIES: tuple[tuple[str, Any], ...] = (
    ("hold", b""), ("hold", b"{"), ("hold", b"\xff\xfe"), ("hold", []), ("hold", {}),
    ("hold", {**GOOD, "session": "../../x"}), ("hold", {**GOOD, "session": "x"}),
    ("hold", {**GOOD, "more": 1}), ("hold", {**GOOD, "author": ""}),
    ("hold", {**GOOD, "author": "a\u0000b"}), ("hold", {**GOOD, "author": "x" * 5000}),
    ("hold", {**GOOD, "author": 7}), ("hold", b"[" * 100_000), ("hold", b"[" * 60_000),
    ("opinions", {**GOOD, "verdict": "good"}), ("opinions", {**GOOD, "verdict": ""}),
    ("opinions", {**GOOD, "verdict": "accepted", "correction": 1}),
    ("opinions", {**GOOD, "verdict": "accepted", "correction": "../x"}),
    ("opinions", {**GOOD, "verdict": "accepted", "comment": "x" * 5000}),
    ("opinions", {**GOOD, "verdict": "accepted", "comment": None}),
    ("corrections?author=Ada&session=session-1", b""),
    ("corrections?author=Ada&session=session-1", b"\0" * 10),
    ("corrections?author=Ada&session=session-1", "BIG"),
    ("corrections?author=Ada&session=session-1", "UNKNOWN"),
    ("corrections?author=Ada&session=session-1&base=../../x", "WHOLE"),
    ("corrections?author=Ada&session=session-1&base=c9", "WHOLE"),
    ("corrections?author=&session=session-1", "WHOLE"),
    ("corrections?author=Ada&session=session-2", "WHOLE"),
    ("corrections?author=Ada", "WHOLE"),
)  # fmt: skip


def test_hostile_bodies_get_4xx_and_leave_no_opinion_and_no_file(out: Path, address: str) -> None:
    archive = ReviewArchive(out)
    study = archive.studies()[0]
    shape = archive.result(study).shape
    size = 2 * int(np.prod(shape))
    bodies = {"BIG": b"\0" * (size + 2), "UNKNOWN": b"\x09\0" * (size // 2), "WHOLE": b"\0" * size}
    place = at(address, f"api/studies/{study.entry.key}/")
    assert send(address, f"{place}hold", method="POST", body=GOOD)[0] == 200
    before = {name: content for name, content in tree(out).items() if name != "review.sqlite"}
    for path, body in HOSTILE_BODIES:
        content = bodies.get(body, body) if isinstance(body, str) else body
        status, answer = send(address, place + path, method="POST", body=content)
        assert 400 <= status < 500, (path, body, status, answer[:300])
        assert b"Traceback" not in answer
    assert archive.store.opinions() == archive.store.corrections() == []
    after = {name: content for name, content in tree(out).items() if name != "review.sqlite"}
    assert after == before


def test_two_pages_do_not_overwrite_each_other(out: Path, address: str) -> None:
    archive = ReviewArchive(out)
    study = archive.studies()[0]
    place = at(address, f"api/studies/{study.entry.key}/")
    one, other = archive.result(study) * 0 + 1, archive.result(study) * 0 + 2

    def save(session: str, values: np.ndarray) -> tuple[int, bytes]:
        content = values.astype("<u2").tobytes(order="F")
        path = f"{place}corrections?author={session}&session={session}"
        return send(address, path, method="POST", body=content)

    def hold(session: str, action: str = "hold") -> int:
        body = {"session": session, "author": session}
        return send(address, place + action, method="POST", body=body)[0]

    assert hold("browser-1") == 200
    assert hold("browser-2") == 409
    assert save("browser-1", one)[0] == 200
    status, answer = save("browser-2", other)
    assert status == 409
    assert b"nothing was saved" in answer
    assert hold("browser-1", "release") == 200
    assert hold("browser-2") == 200
    assert save("browser-1", one)[0] == 409
    assert save("browser-2", other)[0] == 200
    saved = [archive.corrected(study, row) for row in archive.store.corrections()]
    assert [int(values.max()) for values in saved] == [1, 2]
    for values, expected in zip(saved, (one, other), strict=True):
        np.testing.assert_array_equal(values, expected)


def test_archive_that_cannot_be_shown_answers_in_one_line(out: Path, address: str) -> None:
    key = keys_of(out)[0]
    (out / "structures.json").unlink()
    status, body = send(address, at(address, f"api/studies/{key}"))
    assert status == 400
    detail = json.loads(body)["detail"]
    assert "structures.json lacks the structures" in detail
    assert "\n" not in detail


def test_every_file_of_the_page_is_served_and_nothing_names_another_host(address: str) -> None:
    for name in [*TYPES, "niivue.js"]:
        status, body = send(address, at(address, f"assets/{name}"))
        assert status == 200
        if name != "niivue.js":
            assert b"//" not in body.replace(b"// ", b"").replace(b"http://www.w3.org", b"")
