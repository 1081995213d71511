"""A refused caller is not asked again; a refused study ends alone; a silent server ends the run."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from pydicom.dataset import Dataset
from tiny_model import tiny_package

from segmed.archive import segment_archive
from segmed.archive.pacs.delivery import RetryPolicy
from segmed.archive.pacs.dicomweb import DicomWeb, DicomWebSource
from segmed.archive.pacs.dimse import require_success
from segmed.archive.run import MOST_UNANSWERED, RunOptions
from segmed.archive.study import Study, StudyOutcome
from segmed.errors import AccessDeniedError, RefusedRequestError, ServiceError
from segmed.inference import Predictor

QUICK = RetryPolicy(attempts=3, first_wait_s=0.0)


class Pacs(ThreadingHTTPServer):
    """A DICOMweb service of `total` studies that answers some paths by a state of its own."""

    daemon_threads = True

    def __init__(self, total: int, states: dict[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.total = total
        self.states = states
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Pacs

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        path = urlparse(self.path).path
        self.server.asked.append(path)
        state = next((s for part, s in self.server.states.items() if part in path), 200)
        offset = "offset=0" not in self.path and "offset" in self.path
        rows: list[dict[str, Any]] = []
        if path.endswith("/studies"):
            rows = [_uid("0020000D", f"1.2.{n}") for n in range(self.server.total)]
        elif path.endswith("/series"):
            rows = [{**_uid("0020000E", f"{path.split('/')[-2]}.1"), **_uid("00080060", "MR")}]
        elif path.endswith("/instances"):
            rows = [_uid("00080018", f"{path.split('/')[-2]}.1")]
        body = b"" if offset else json.dumps(rows).encode()
        self.send_response(state if state != 200 or body else 204)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _uid(tag: str, value: str) -> dict[str, Any]:
    return {tag: {"vr": "UI", "Value": [value]}}


@pytest.fixture
def serve() -> Iterator[Any]:
    started: list[Pacs] = []

    def start(total: int, states: dict[str, int]) -> tuple[Pacs, DicomWebSource]:
        server = Pacs(total, states)
        started.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/dicom-web"
        return server, DicomWebSource(DicomWeb(url, "user", "wrong", retry=QUICK))

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(tiny_package(), device="cpu", engine="torch")


@pytest.mark.parametrize("state", [401, 403, 407])
def test_refused_caller_is_asked_once(serve: Any, state: int) -> None:
    server, source = serve(3, {"/studies": state})
    with pytest.raises(AccessDeniedError, match=f"HTTP {state}; check user, password"):
        list(source.studies())
    assert len(server.asked) == 1


@pytest.mark.parametrize("state", [404, 410, 400])
def test_study_that_is_refused_ends_alone(serve: Any, state: int) -> None:
    server, source = serve(3, {"studies/1.2.1/series": state})
    found = list(source.studies())
    assert all(isinstance(study, Study) for study in found)
    faults = [study.fault.reason if study.fault else "" for study in found]
    assert faults == ["", "service_refuses", ""]
    assert sum("1.2.1/series" in path for path in server.asked) == 1


@pytest.mark.parametrize("state", [500, 503, 429])
def test_service_in_trouble_is_asked_as_often_as_the_retry_policy_says(
    serve: Any, state: int
) -> None:
    server, source = serve(3, {"/studies": state})
    with pytest.raises(ServiceError, match=f"HTTP {state}"):
        list(source.studies())
    assert len(server.asked) == QUICK.attempts


def test_run_ends_when_fetching_is_denied(serve: Any, predictor: Predictor, tmp_path: Path) -> None:
    listed_not_sent = {"/instances": 200, **{f"series/1.2.{n}.1": 401 for n in range(20)}}
    server, source = serve(20, listed_not_sent)
    with pytest.raises(AccessDeniedError):
        list(
            segment_archive(
                source, predictor=predictor, out_dir=tmp_path, options=RunOptions(retry=QUICK)
            )
        )
    fetched = [path for path in server.asked if path.rsplit("/", 2)[-2] == "series"]
    assert 1 <= len(fetched) < 12


def test_run_ends_when_the_service_falls_silent(
    serve: Any, predictor: Predictor, tmp_path: Path
) -> None:
    _, source = serve(40, {"/instances": 200, **{f"series/1.2.{n}.1": 503 for n in range(40)}})
    outcomes: list[StudyOutcome] = []
    run = segment_archive(
        source, predictor=predictor, out_dir=tmp_path, options=RunOptions(retry=QUICK)
    )
    with pytest.raises(ServiceError, match="in a row ended without an answer"):
        outcomes.extend(run)
    assert len(outcomes) == MOST_UNANSWERED
    assert {outcome.status for outcome in outcomes} == {"failed"}


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0x0124, AccessDeniedError),
        (0xA900, RefusedRequestError),
        (0xA9FF, RefusedRequestError),
        (0x0122, RefusedRequestError),
        (0xA700, ServiceError),
        (0xC001, ServiceError),
        (None, ServiceError),
    ],
)
def test_states_of_dimse_are_told_apart(value: int | None, error: type[Exception]) -> None:
    status = Dataset()
    if value is not None:
        status.Status = value
    with pytest.raises(error) as raised:
        require_success(status, "send a series")
    assert type(raised.value) is error
