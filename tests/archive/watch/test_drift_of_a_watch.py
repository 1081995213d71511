"""A watch of one study a day names drift, and withdraws promise and intervals."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from monai.data import MetaTensor
from rated_model import DRIFTED, SOUND, Pacs, rated_package, write_study

from segmed.archive import FolderSource, RunOptions
from segmed.archive.drift import read_drift
from segmed.archive.quality_bound import read_bound
from segmed.archive.segment import open_run
from segmed.archive.watch.arrival import Completeness
from segmed.archive.watch.inbox import Inbox
from segmed.archive.watch.loop import Watch, WatchOptions
from segmed.archive.watch.route import Route
from segmed.formats import SegForm
from segmed.inference import Predictor

LONGEST_S = 120.0
DAY_S = 86400.0
MakeVolume = Callable[..., MetaTensor]


class DailyWatch:
    """A watch whose every study comes on a day of its own."""

    def __init__(self, watch: Watch, inbox: Inbox, sent: Path, make_volume: MakeVolume) -> None:
        self.watch, self.inbox, self.sent, self.make_volume = watch, inbox, sent, make_volume
        self.now = time.time()
        watch.clock = lambda: self.now

    def day(self, seed: int, factor: float) -> None:
        """One study arrives and is segmented; the records are written."""
        self.now += DAY_S
        for path in write_study(self.sent / str(seed), self.make_volume, seed, factor):
            self.inbox.store(path.read_bytes())
        deadline = time.monotonic() + LONGEST_S
        while self.inbox.arrivals() or self.watch._unwritten:
            assert time.monotonic() < deadline
            list(self.watch.step())


def test_shift_that_arrives_one_study_a_day_is_named_and_withdraws(
    tmp_path: Path, make_volume: MakeVolume
) -> None:
    predictor = Predictor(rated_package(make_volume), device="cpu", engine="torch")
    out, pacs = tmp_path / "out", Pacs()
    inbox = Inbox(tmp_path / "inbox")
    with open_run(
        FolderSource(inbox.root),
        predictor=predictor,
        out_dir=out,
        format="dicom-seg",
        delivery=pacs,
        options=RunOptions(min_free_bytes=0, seg=SegForm(reports=("sr",))),
    ) as run:
        route = Route("watch", run, complete=Completeness(quiet_s=0))
        options = WatchOptions(tick_s=0.0, records_s=0.0)
        days = DailyWatch(
            Watch(inbox, [route], out, options), inbox, tmp_path / "sent", make_volume
        )
        for seed in range(3):
            days.day(100 + seed, SOUND)
        assert read_bound(out).withdrawn == ()
        assert pacs.stating == 3
        for seed in range(10):
            days.day(200 + seed, DRIFTED)
        bound = read_bound(out)
        assert "intensity:0:median" in bound.withdrawn
        assert not bound.is_promised
        assert "withdrawn: " in bound.sentence
        alarm = next(row for row in read_drift(out) if row.feature == "intensity:0:median")
        assert alarm.is_alarm
        assert alarm.num_run >= 8
        assert pacs.withdrawn, "reports that were sent before the alarm are recalled"
        withdrawn = len(pacs.withdrawn)
        stating = pacs.stating
        assert stating <= 3, "no report of a drifted study states an interval"
        # The watch goes on: what it writes from now on states no interval in the first place.
        days.day(300, DRIFTED)
        assert (pacs.stating, len(pacs.withdrawn)) == (stating, withdrawn)
        page = (out / "report.html").read_text(encoding="utf-8")
        assert "Drift alarm: intensity:0:median is" in page
