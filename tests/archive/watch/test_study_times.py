"""Times of a watched study: the parts, their record, and what a server says of its last slice."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from segmed.archive.study import StudyOutcome
from segmed.archive.transfers import MOST, TransferTimes
from segmed.archive.watch.snapshot import Snapshot, SnapshotFile, read_snapshot
from segmed.archive.watch.times import (
    PARTS,
    TIMES_FILE,
    LatencyStatistics,
    Moments,
    StudyTimes,
    note_times,
    study_times,
)

DONE = StudyOutcome("key", "5ac0", "done", "", "a.nii.gz", "dicom", 1.5, "model")


def test_parts_add_up_to_the_time_from_the_last_slice() -> None:
    transfers = TransferTimes()
    transfers._seconds.update({("key", "fetching"): 0.5, ("key", "sending"): 0.25})
    found = study_times(DONE, Moments(100.0, 120.0, 123.0, 126.0), transfers)
    assert asdict(found) == {
        "arriving": 20.0, "queued": 3.0, "fetching": 0.5, "segmenting": 1.5, "sending": 0.25,
        "other": 0.75,
    }  # fmt: skip
    assert found.total == 26.0
    assert transfers.taken("key", "sending") == 0.0  # it was taken


def test_line_about_a_study_names_its_parts() -> None:
    times = StudyTimes(20.0, 0.01, 0.0, 1.5, 0.2, 0.0)
    assert str(times) == "21.7 s after its last image (arriving 20.0, segmenting 1.5, sending 0.2)"


def test_record_has_a_line_a_study_and_is_private(tmp_path: Path) -> None:
    times = StudyTimes(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    for status in ("done", "failed"):
        note_times(tmp_path, replace(DONE, status=status), times, 1e9)
    path = tmp_path / TIMES_FILE
    assert path.stat().st_mode & 0o077 == 0
    with path.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["status"] for row in rows] == ["done", "failed"]
    assert [float(rows[0][f"{part}_s"]) for part in PARTS] == [1, 2, 3, 4, 5, 6]
    assert float(rows[0]["total_s"]) == 21.0
    assert rows[0]["study"] == "5ac0"


def test_percentiles_of_the_parts_are_in_the_snapshot(tmp_path: Path) -> None:
    found = LatencyStatistics()
    assert (found.whole_s, found.parts_s) == ((), {})
    for seconds in range(1, 101):
        found.add(StudyTimes(float(seconds), 0.0, 0.0, 1.0, 0.0, 0.0))
    assert found.parts_s["arriving"] == (50.0, 95.0)
    assert found.whole_s == (51.0, 96.0)
    snapshot = Snapshot(is_running=True, latencies_s=found.whole_s, parts_s=found.parts_s)
    SnapshotFile(tmp_path).write(snapshot)
    read = read_snapshot(tmp_path)
    assert read is not None
    assert list(read.parts_s["arriving"]) == [50.0, 95.0]


def test_snapshot_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    record = {"is_running": True, "studies": [], "routes": {"watch": "."}, "latencies_s": [1, 2]}
    (tmp_path / "watch.json").write_text(json.dumps(record), encoding="utf-8")
    read = read_snapshot(tmp_path)
    assert read is not None
    assert read.parts_s == {}


def test_transfers_of_a_run_that_never_asks_are_forgotten() -> None:
    transfers = TransferTimes()
    for number in range(MOST + 5):
        with transfers.measured(str(number), "sending"):
            pass
    assert len(transfers._seconds) == MOST
    assert transfers.taken(str(MOST + 4), "sending") > 0.0


@pytest.mark.parametrize("status", ["refused", "failed"])
def test_transfer_that_fails_is_measured(status: str) -> None:
    transfers = TransferTimes()
    with pytest.raises(OSError, match=status), transfers.measured("key", "fetching"):
        raise OSError(status)
    assert transfers.taken("key", "fetching") > 0.0
