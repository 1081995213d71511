"""A server that is watched: what changed is found once, also after a kill, and results are not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from segmed.archive.pacs.delivery import RetryPolicy
from segmed.archive.pacs.dicomweb import DicomWeb, DicomWebSource
from segmed.archive.pacs.orthanc import OrthancServer
from segmed.archive.watch.arrival import Completeness
from segmed.archive.watch.server import DatedListing, OrthancListing, ServerFeed
from segmed.errors import ServiceError

ONCE = RetryPolicy(attempts=1)


@dataclass
class Site:
    """Studies of a server: UIDs of the instances of each series, by study."""

    studies: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    last_update: str = ""

    def add(self, study: str, number: int, modality: str = "MR") -> None:
        """Give a study so many instances, and call it stable."""
        found = self.studies.setdefault(study, {})
        found[f"{study}.{modality}"] = [f"{study}.{modality}.{n}" for n in range(number)]
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        seq = len(self.changes) + 1
        self.changes.append({"ChangeType": "StableStudy", "ID": study, "Seq": seq, "Date": now})

    def answer(self, path: str, query: dict[str, list[str]]) -> Any:
        parts = path.strip("/").split("/")
        if any(part in self.broken for part in parts):
            return None
        if parts == ["changes"]:
            since = int(query["since"][0])
            found = [one for one in self.changes if one["Seq"] > since]
            return {"Changes": found, "Done": True, "Last": max(since, len(self.changes))}
        if parts[0] == "studies":
            return {
                "MainDicomTags": {"StudyInstanceUID": parts[1]},
                "PatientMainDicomTags": {"PatientID": "P"},
                "LastUpdate": self.last_update,
            }
        return [] if query.get("offset", ["0"])[0] != "0" else self.rows(parts[1:])

    def rows(self, parts: list[str]) -> list[dict[str, Any]]:
        if len(parts) == 1:
            return [
                row("0020000D", uid, "00201208", sum(map(len, series.values())))
                for uid, series in self.studies.items()
            ]
        series = self.studies[parts[1]]
        if len(parts) == 3:
            return [row("0020000E", uid, "00080060", uid.rsplit(".", 1)[-1]) for uid in series]
        return [row("00080018", uid, "00100020", "P") for uid in series[parts[3]]]


def row(tag: str, value: object, *more: object) -> dict[str, Any]:
    pairs = [(tag, value), more, ("00100020", "P")]
    return {str(name): {"vr": "UI", "Value": [one]} for name, one in pairs}


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def root(site: Site) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlparse(self.path)
            found = site.answer(parts.path, parse_qs(parts.query))
            content = json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def feed_of(root: str, folder: Path, *, is_orthanc: bool) -> ServerFeed:
    service = DicomWeb(f"{root}/dicom-web", retry=ONCE)
    source = DicomWebSource(service)
    orthanc = OrthancServer(service, root)
    listing = OrthancListing(orthanc, folder, 2) if is_orthanc else DatedListing(source)
    return ServerFeed(source, listing, folder, poll_s=0.0)


def settle(feed: ServerFeed) -> list[int]:
    """Settle all that has arrived; number of instances of each study."""
    found = feed.arrivals()
    for one in found:
        feed.settle(one.ref, feed.state_of(one.ref))
    return [one.instances for one in found]


@pytest.mark.parametrize("is_orthanc", [True, False], ids=["orthanc", "dicomweb"])
def test_study_is_found_once_for_each_content(
    root: str, site: Site, tmp_path: Path, is_orthanc: bool
) -> None:
    feed = feed_of(root, tmp_path, is_orthanc=is_orthanc)
    assert feed.arrivals() == []
    site.add("1.2", 5)
    assert settle(feed) == [5]
    assert feed.arrivals() == []
    site.add("1.2", 1, "SEG")  # the result comes back
    assert feed.arrivals() == []
    site.add("1.2", 6)
    site.add("1.3", 2)
    assert sorted(settle(feed)) == [2, 6]
    assert feed.arrivals() == []


@pytest.mark.parametrize("is_orthanc", [True, False], ids=["orthanc", "dicomweb"])
def test_next_process_takes_up_what_was_not_settled_and_came_meanwhile(
    root: str, site: Site, tmp_path: Path, is_orthanc: bool
) -> None:
    for study, number in (("1.2", 5), ("1.3", 4), ("1.5", 3)):
        site.add(study, number)
    feed = feed_of(root, tmp_path, is_orthanc=is_orthanc)
    _, middle, _ = feed.arrivals()
    feed.settle(middle.ref, feed.state_of(middle.ref))
    site.add("1.4", 7)  # while nobody watches
    later = feed_of(root, tmp_path, is_orthanc=is_orthanc)
    assert sorted(settle(later)) == [3, 5, 7]
    assert feed_of(root, tmp_path, is_orthanc=is_orthanc).arrivals() == []


def test_stable_study_of_orthanc_is_complete_and_one_of_dicomweb_has_to_be_quiet(
    root: str, site: Site, tmp_path: Path
) -> None:
    site.add("1.2", 5)
    verdicts = []
    for is_orthanc in (True, False):
        [one] = feed_of(root, tmp_path / str(is_orthanc), is_orthanc=is_orthanc).arrivals()
        verdicts.append(Completeness(quiet_s=60).judge(one, one.last)[0])
    assert verdicts == ["complete", "arriving"]


@pytest.mark.parametrize(
    ("stated", "is_told"), [("20200102T030405", True), ("", False), ("soon", False)]
)
def test_last_slice_is_as_old_as_orthanc_says(
    root: str, site: Site, tmp_path: Path, stated: str, is_told: bool
) -> None:
    site.last_update = stated
    site.add("1.2", 5)
    [arrival] = feed_of(root, tmp_path, is_orthanc=True).arrivals()
    then = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    assert (arrival.last == then) == is_told
    if not is_told:
        assert arrival.last == arrival.first


def test_study_that_the_server_refuses_to_list_does_not_stop_the_others(
    root: str, site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site.add("1.2", 5)
    site.add("1.3", 3)
    site.broken.add("1.2")
    feed = feed_of(root, tmp_path, is_orthanc=False)
    assert [one.instances for one in feed.arrivals()] == [3]
    assert "is left alone until it changes" in caplog.text
    site.broken.clear()
    site.add("1.2", 6)
    assert sorted(one.instances for one in feed.arrivals()) == [3, 6]


def test_server_without_changes_is_no_orthanc(root: str, site: Site, tmp_path: Path) -> None:
    site.broken.add("changes")
    with pytest.raises(ServiceError, match="it is no Orthanc"):
        feed_of(root, tmp_path, is_orthanc=True).arrivals()
