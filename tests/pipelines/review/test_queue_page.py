"""The page of the queue of a watch in the review server."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from segmed.archive.watch.snapshot import Snapshot, SnapshotFile, WaitingStudy


def body(url: str) -> str:
    with urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())


def test_queue_is_shown_to_those_who_have_the_token(address: str, out: Path) -> None:
    waiting = WaitingStudy("ab12", "<mr>", "queued", "until 20:00-06:00", time.time() - 300)
    SnapshotFile(out).write(Snapshot(True, studies=(waiting,), latencies_s=(12.0, 40.0)))
    page = body(f"{address}queue")
    assert "The watch is at work." in page
    assert "<td>ab12</td><td>&lt;mr&gt;</td><td>queued</td>" in page
    assert "95 % within 40 s" in page
    assert json.loads(body(f"{address}api/queue"))["studies"][0]["study"] == "ab12"
    with pytest.raises(HTTPError, match="403"):
        body(address.rsplit("/", 2)[0] + "/queue")


def test_watch_that_died_or_was_stopped_is_named(address: str, out: Path) -> None:
    SnapshotFile(out).write(Snapshot(True))
    path = out / "watch.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text(encoding="utf-8")), "written": time.time() - 100}),
        encoding="utf-8",
    )
    assert "has not answered for 100 s" in body(f"{address}queue")
    SnapshotFile(out).write(Snapshot(False, server="gone"))
    assert "was stopped" in body(f"{address}queue")


def test_queue_of_a_rule_is_that_of_its_watch(address: str, out: Path) -> None:
    SnapshotFile(out.parent).write(Snapshot(True, server="the PACS is silent"))
    assert "the PACS is silent" in body(f"{address}queue")


def test_archive_without_a_watch_has_no_queue(address: str) -> None:
    with pytest.raises(HTTPError, match="404"):
        body(f"{address}queue")
