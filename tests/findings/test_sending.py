"""Reports to an address: acknowledged, refused or to be tried again, by what the receiver says."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from segmed.errors import AccessDeniedError, RefusedRequestError, ServiceError, UsageError
from segmed.findings.sending import FhirSender, MllpSender, report_sender_at


@contextmanager
def mllp_receiver(answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A receiver of one message, which it answers so."""
    got: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            line, _ = server.accept()
            with line:
                frame = b""
                while not frame.endswith(b"\x1c\r"):
                    frame += line.recv(4096)
                got.append(frame)
                line.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], got
        thread.join()


def acknowledgement(code: str) -> bytes:
    return b"\x0bMSH|^~\\&|LAB\rMSA|" + code.encode() + b"|1\r\x1c\r"


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "x.oru.hl7"
    path.write_bytes("MSH|^~\\&|SEGMED\rPID|1||ü\r".encode())
    return path


@pytest.mark.parametrize("code", ["AA", "CA"])
def test_message_is_framed_and_its_acknowledgement_awaited(report: Path, code: str) -> None:
    with mllp_receiver(acknowledgement(code)) as (port, got):
        MllpSender("127.0.0.1", port).send(report)
    assert got == [b"\x0b" + report.read_bytes() + b"\x1c\r"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (acknowledgement("AR"), RefusedRequestError),
        (acknowledgement("AE"), ServiceError),
        (b"\x0bMSH|^~\\&|LAB\r\x1c\r", ServiceError),
        (b"", ServiceError),
    ],
)
def test_message_without_a_positive_acknowledgement_is_not_sent(
    report: Path, answer: bytes, error: type[ServiceError]
) -> None:
    with mllp_receiver(answer) as (port, _), pytest.raises(ServiceError) as caught:
        MllpSender("127.0.0.1", port).send(report)
    assert type(caught.value) is error


def test_receiver_that_is_not_there_may_come_back(report: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ServiceError, match="does not answer") as caught:
        MllpSender("127.0.0.1", port).send(report)
    assert type(caught.value) is ServiceError


@contextmanager
def fhir_server(state: int) -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """A server that answers every request with one state."""
    got: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, dict(self.headers), body))
            self.send_response(state)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}", got
        server.shutdown()
        thread.join()


def test_bundle_is_posted_to_the_base_with_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGMED_FHIR_TOKEN", "secret")
    path = tmp_path / "x.fhir.json"
    path.write_text(json.dumps({"resourceType": "Bundle"}), encoding="utf-8")
    with fhir_server(200) as (place, got):
        sender = report_sender_at(f"fhir://{place}/base")
        assert sender.kind == "fhir"
        sender.send(path)
    ((where, headers, body),) = got
    assert where == "/base"
    assert headers["Content-Type"] == "application/fhir+json"
    assert headers["Authorization"] == "Bearer secret"
    assert body == path.read_bytes()


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (401, AccessDeniedError), (403, AccessDeniedError), (400, RefusedRequestError),
        (422, RefusedRequestError), (429, ServiceError), (503, ServiceError), (302, ServiceError),
    ],
)  # fmt: skip
def test_states_decide_between_refused_and_later(
    tmp_path: Path, state: int, error: type[ServiceError]
) -> None:
    path = tmp_path / "x.fhir.json"
    path.write_text("{}", encoding="utf-8")
    with fhir_server(state) as (place, _), pytest.raises(ServiceError) as caught:
        FhirSender(f"http://{place}").send(path)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://host/fhir", "fhir, fhirs, mllp"),
        ("mllp://", "names no host"),
        ("mllp://host:0", "names no host and port"),
        ("fhir://user:pw@host/x", "SEGMED_FHIR_TOKEN"),
        ("mllp://host:port", "no address"),
    ],
)
def test_addresses_that_cannot_be_used_say_what_would_do(address: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        report_sender_at(address)
    assert "pw" not in str(caught.value)


def test_ports_of_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGMED_FHIR_TOKEN", raising=False)
    assert report_sender_at("mllp://host") == MllpSender("host", 2575)
    assert report_sender_at("fhirs://host:8443/r4/") == FhirSender("https://host:8443/r4")
