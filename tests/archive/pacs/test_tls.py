"""DICOMweb over TLS, against a server that asks for certificates: who is not known gets nothing."""

from __future__ import annotations

import http.server
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from segmed.archive.pacs.address import open_address
from segmed.archive.pacs.delivery import RetryPolicy
from segmed.archive.pacs.dicomweb import DicomWeb, DicomWebSource
from segmed.errors import ServiceError, UsageError

VARIABLES = ("TOKEN", "CERT", "KEY", "CA")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and the certificates that it gave to server and client."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority",
            "-days", "2")  # fmt: skip
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n", encoding="utf-8")
    for name in ("server", "client"):
        openssl("req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj",
                f"/CN={name}")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-out", f"{name}.pem", "-days", "2", "-extfile",
                "names")  # fmt: skip
    return folder


class Archive(http.server.BaseHTTPRequestHandler):
    """Knows no studies; gives them to holders of the token only."""

    def do_GET(self) -> None:
        knows = self.headers.get("Authorization") == "Bearer 0pen5esame"
        self.send_response(200 if knows else 401)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *words: object) -> None:
        """Silence."""


@pytest.fixture(scope="module")
def address(certificates: Path) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Archive)
    server.handle_error = lambda *words: None
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"dicomwebs://127.0.0.1:{server.server_address[1]}/dicom-web"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def known(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of somebody who is known to the archive."""
    monkeypatch.setenv("SEGMED_DICOMWEB_TOKEN", "0pen5esame")
    monkeypatch.setenv("SEGMED_DICOMWEB_CERT", str(certificates / "client.pem"))
    monkeypatch.setenv("SEGMED_DICOMWEB_KEY", str(certificates / "client.key"))
    monkeypatch.setenv("SEGMED_DICOMWEB_CA", str(certificates / "ca.pem"))


def ask(address: str) -> list[object]:
    service = open_address(address)
    assert isinstance(service, DicomWeb)
    hasty = replace(service, retry=RetryPolicy(attempts=1))
    return list(DicomWebSource(hasty).studies())


def test_token_and_certificates_open_the_archive(address: str) -> None:
    assert ask(address) == []


@pytest.mark.parametrize("missing", [("TOKEN",), ("CERT", "KEY"), ("CA",)])
def test_without_one_of_them_the_archive_stays_shut(
    address: str, missing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in missing:
        monkeypatch.delenv(f"SEGMED_DICOMWEB_{name}")
    with pytest.raises(ServiceError):
        ask(address)


def test_proofs_are_never_shown(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "0pen5esame" not in repr(open_address(address))
    monkeypatch.setenv("SEGMED_DICOMWEB_TOKEN", "wrong-0pen")
    with pytest.raises(ServiceError) as refusal:
        ask(address)
    assert "wrong-0pen" not in str(refusal.value)


def test_token_is_not_sent_in_the_clear() -> None:
    with pytest.raises(UsageError, match="in the clear"):
        ask("dicomweb://pacs.example.org/dicom-web")


def test_file_that_is_missing_is_named(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGMED_DICOMWEB_CA", str(tmp_path / "gone.pem"))
    with pytest.raises(UsageError, match=r"gone\.pem, which is not a file"):
        open_address(address)
