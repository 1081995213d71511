"""Answers of a PACS that are none end one request by name, and one study alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pydicom
import pytest
from pydicom.dataset import Dataset
from tiny_model import tiny_package

from segmed.archive import segment_archive
from segmed.archive.pacs.delivery import RetryPolicy
from segmed.archive.pacs.dicomweb import DicomWeb, DicomWebSource, text_of
from segmed.archive.pacs.dimse import Dimse, DimseSource, unlike
from segmed.archive.run import MOST_UNANSWERED, RunOptions
from segmed.archive.study import Study, StudyOutcome
from segmed.archive.totals import Estimate, ListedSource, counted
from segmed.errors import RefusedRequestError, ServiceError
from segmed.inference import Predictor

QUICK = RetryPolicy(attempts=2, first_wait_s=0.0)
MULTIPART = 'multipart/related; type="application/dicom"; boundary=XX'

Answer = tuple[int, str, bytes]


class Pacs(ThreadingHTTPServer):
    """A DICOMweb service of real files that answers some requests by something else.

    Args:
        files: The files; each study and series among them is listed.
        odd: Gives the answer to a path and its query, or None for the proper one.
    """

    daemon_threads = True

    def __init__(self, files: list[Path], odd: Callable[[str, int], Answer | None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.odd = odd
        self.asked: list[str] = []
        self.by_series: dict[tuple[str, str], list[tuple[str, Path]]] = {}
        for path in files:
            head = pydicom.dcmread(path, stop_before_pixels=True)
            owner = (str(head.StudyInstanceUID), str(head.SeriesInstanceUID))
            self.by_series.setdefault(owner, []).append((str(head.SOPInstanceUID), path))

    def rows(self, path: str) -> list[dict[str, Any]]:
        parts = path.split("/")
        if parts[-1] == "studies":
            return [_attribute("0020000D", study) for study, _ in self.by_series]
        if parts[-1] == "series":
            return [
                {**_attribute("0020000E", series), **_attribute("00080060", "MR")}
                for study, series in self.by_series
                if study == parts[-2]
            ]
        return [
            _attribute("00080018", uid)
            for (_, series), files in self.by_series.items()
            if series == parts[-2]
            for uid, _ in files
        ]

    def sent(self, series: str) -> list[bytes]:
        return [
            path.read_bytes()
            for (_, uid), files in self.by_series.items()
            if uid == series
            for _, path in files
        ]


class _Handler(BaseHTTPRequestHandler):
    server: Pacs

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        url = urlparse(self.path)
        offset = int(parse_qs(url.query).get("offset", ["0"])[0])
        self.server.asked.append(self.path)
        answer = self.server.odd(url.path, offset)
        if answer is None and is_retrieval(url.path):
            answer = (200, MULTIPART, multipart(self.server.sent(url.path.split("/")[-1])))
        elif answer is None:
            answer = (200, "application/dicom+json", _json(self.server.rows(url.path)[offset:]))
        state, kind, body = answer
        self.send_response(state)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def is_retrieval(path: str) -> bool:
    return path.split("/")[-2] == "series"


def multipart(parts: list[bytes]) -> bytes:
    head = b"--XX\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(head + part + b"\r\n" for part in parts) + b"--XX--\r\n"


def _json(rows: object) -> bytes:
    return json.dumps(rows).encode()


def _attribute(tag: str, value: object) -> dict[str, Any]:
    return {tag: {"vr": "UI", "Value": [value]}}


@pytest.fixture
def serve(write_dicom: Callable[..., list[Path]], tmp_path: Path) -> Iterator[Any]:
    started: list[Pacs] = []

    def start(
        odd: Callable[[str, int], Answer | None], *, total: int = 2
    ) -> tuple[Pacs, DicomWebSource]:
        for number in range(total):
            write_dicom(tmp_path / f"held/{number}", number)
        server = Pacs(sorted((tmp_path / "held").rglob("*.dcm")), odd)
        started.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/dicom-web"
        return server, DicomWebSource(DicomWeb(url, retry=QUICK))

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(tiny_package(), device="cpu", engine="torch")


def ends(source: DicomWebSource, predictor: Predictor, folder: Path) -> list[StudyOutcome]:
    options = RunOptions(retry=QUICK)
    return list(
        segment_archive(source, predictor=predictor, out_dir=folder / "out", options=options)
    )


LOGIN = (200, "text/html", b"<html>please log in</html>")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (LOGIN, "service"),
        ((500, "text/plain", b"lost"), "service"),
        ((200, "application/dicom+json", b"null"), "service_refuses"),
        ((200, "application/dicom+json", _json(["1.2.3"])), "service_refuses"),
        ((200, "application/dicom+json", _json([_attribute("0020000E", None)])), "service_refuses"),
    ],
    ids=["login", "500", "null", "strings", "no UID"],
)
def test_a_study_that_is_not_listed_properly_fails_alone(
    serve: Any, predictor: Predictor, tmp_path: Path, answer: Answer, reason: str
) -> None:
    studies: list[str] = []

    def odd(path: str, offset: int) -> Answer | None:
        if not path.endswith("/series"):
            return None
        studies.append(path)
        return answer if path == studies[0] else None

    _, source = serve(odd)
    found = ends(source, predictor, tmp_path)
    assert [outcome.reason.partition(":")[0] for outcome in found] == [reason, ""]
    assert [outcome.status for outcome in found] == ["failed", "done"]


def test_a_service_that_lists_no_study_properly_ends_the_run(
    serve: Any, predictor: Predictor, tmp_path: Path
) -> None:
    total = MOST_UNANSWERED + 3
    server, source = serve(lambda path, _: LOGIN if path.endswith("/series") else None, total=total)
    with pytest.raises(ServiceError, match="in a row ended without an answer"):
        ends(source, predictor, tmp_path)
    asked = {path for path in server.asked if "/series" in path}
    assert len(asked) == MOST_UNANSWERED


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (LOGIN, "not of the requested form"),
        ((204, MULTIPART, b""), "0 of 8 instances"),
        ((200, MULTIPART, multipart([b"no DICOM"])), "not of the requested form"),
    ],
)
def test_what_is_sent_instead_of_images_is_named(
    serve: Any, predictor: Predictor, tmp_path: Path, answer: Answer, why: str
) -> None:
    _, source = serve(lambda path, _: answer if is_retrieval(path) else None)
    for outcome in ends(source, predictor, tmp_path):
        assert (outcome.status, outcome.reason.partition(":")[0]) == ("failed", "service")
        assert why in outcome.reason


@pytest.mark.parametrize("at", ["first", "last"])
def test_copies_of_an_image_stand_for_no_other(
    serve: Any, predictor: Predictor, tmp_path: Path, at: str
) -> None:
    def odd(path: str, _: int) -> Answer | None:
        if not is_retrieval(path):
            return None
        images = server.sent(path.rsplit("/", maxsplit=1)[-1])
        doubled = [*images[:-1], images[0]] if at == "last" else [images[-1], *images[1:]]
        return (200, MULTIPART, multipart(doubled))

    server, source = serve(odd)
    for outcome in ends(source, predictor, tmp_path):
        assert outcome.status == "failed"
        assert "instances of a series were to be had" in outcome.reason


def test_not_found_behind_the_last_page_is_the_end_of_a_listing(serve: Any) -> None:
    server, source = serve(lambda _, offset: (404, "text/plain", b"") if offset else None, total=3)
    found = list(source.studies())
    assert [study.fault for study in found if isinstance(study, Study)] == [None] * 3
    assert [study.remote["instances"] for study in found] == [
        len(files) for files in server.by_series.values()
    ]


@pytest.mark.parametrize(
    ("element", "text"),
    [
        ({"vr": "CS", "Value": ["MR"]}, "MR"),
        ({"vr": "CS", "Value": "MR"}, "MR"),
        ({"vr": "IS", "Value": [3]}, "3"),
        ({"vr": "CS", "Value": [None]}, ""),
        ({"vr": "CS", "Value": [{"odd": 1}]}, ""),
        ({"vr": "CS"}, ""),
        (None, ""),
        ("MR", ""),
    ],
)
def test_an_attribute_that_is_none_is_empty(element: object, text: str) -> None:
    assert text_of({"00080060": element}, "00080060") == text


def answer_of(**values: str) -> Dataset:
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def test_a_node_that_repeats_its_answers_doubles_no_study() -> None:
    one, other = answer_of(StudyInstanceUID="1.2"), answer_of(StudyInstanceUID="1.3")
    assert unlike([one, other, one], "StudyInstanceUID", "PatientID") == [one, other]
    for empty in (answer_of(), answer_of(StudyInstanceUID="")):
        with pytest.raises(RefusedRequestError, match="without StudyInstanceUID"):
            unlike([one, empty], "StudyInstanceUID", "PatientID")


def test_total_of_a_pacs_is_exact_once_its_last_study_is_listed(serve: Any) -> None:
    _, source = serve(lambda *_: None, total=3)
    assert source.count_studies() == 3
    totals: list[tuple[int, bool]] = []
    is_known = threading.Event()

    def note(total: int, is_estimate: bool) -> None:
        totals.append((total, is_estimate))
        if not is_estimate:
            is_known.set()

    assert len(list(counted(source, note).studies())) == 3
    assert is_known.wait(120)
    assert totals[-1] == (3, False)


def test_estimate_of_a_total_takes_the_studies_to_come_for_those_that_came() -> None:
    totals: list[tuple[int, bool]] = []
    estimate = Estimate(lambda *total: totals.append(total))
    estimate.add(2)
    assert totals == []  # the number of studies is not known yet
    estimate.expect(4)
    for units in (0, 4, 0):
        estimate.add(units)
    assert totals == [(8, True), (4, True), (8, True), (6, False)]
    estimate.add(1)  # a study that has arrived meanwhile
    assert totals[-1] == (7, False)


def test_sources_of_a_pacs_know_their_total_and_others_none() -> None:
    assert isinstance(DimseSource(Dimse("127.0.0.1", 1, "NODE")), ListedSource)
    assert not isinstance(object(), ListedSource)
