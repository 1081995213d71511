"""Order of work of a watch: the urgent first, off-peak work at its hours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from segmed.archive import FolderSource, RunOptions
from segmed.archive.query import SeriesQuery
from segmed.archive.segment import open_run
from segmed.archive.study import StudyOutcome
from segmed.archive.watch.arrival import Completeness
from segmed.archive.watch.inbox import Inbox
from segmed.archive.watch.loop import Watch, WatchOptions
from segmed.archive.watch.route import Hours, Priority, Route
from segmed.archive.watch.snapshot import read_snapshot
from segmed.archive.watch.times import TIMES_FILE, percentiles
from segmed.inference import Predictor

NIGHT = Hours(datetime(2026, 1, 1, 20).time(), datetime(2026, 1, 1, 6).time())
NO_WAIT = Completeness(quiet_s=0)
LONGEST_S = 60.0


def at(hour: int) -> float:
    """A time of tomorrow, in s since 1970; later than whatever arrives now."""
    now = datetime.now().astimezone()
    return now.replace(hour=hour, minute=30).timestamp() + 86400.0


@pytest.fixture
def inbox(tmp_path: Path, write_dicom: Callable[..., list[Path]]) -> Inbox:
    """An inbox with one study of one series."""
    found = Inbox(tmp_path / "out/inbox")
    for path in write_dicom(tmp_path / "sent", 1):
        found.store(path.read_bytes())
    return found


@contextmanager
def watching(
    inbox: Inbox,
    predictor: Predictor,
    priorities: dict[str, Priority],
    hour: int = 12,
    started: float = 0.0,
) -> Iterator[Watch]:
    """A watch with a route for each priority, whose clock stands at an hour after its start."""
    now = [started]
    out = inbox.root.parent
    with ExitStack() as stack:
        routes = [
            Route(
                name,
                stack.enter_context(
                    open_run(
                        FolderSource(inbox.root),
                        predictor=predictor,
                        out_dir=out / name,
                        options=RunOptions(min_free_bytes=0),
                    )
                ),
                complete=NO_WAIT,
                priority=priority,
                hours=NIGHT,
            )
            for name, priority in priorities.items()
        ]
        watch = Watch(inbox, routes, out, WatchOptions(in_hand=1), clock=lambda: now[0])
        now[0] = at(hour)
        yield watch


def until_settled(watch: Watch, inbox: Inbox) -> list[tuple[str, StudyOutcome]]:
    """All outcomes until the inbox is settled."""
    found, deadline = [], time.monotonic() + LONGEST_S
    while inbox.arrivals() or not found:
        assert time.monotonic() < deadline
        found += list(watch.step())
        time.sleep(0.01)
    return found


def test_urgent_work_comes_first_and_normal_before_off_peak(
    inbox: Inbox, predictor: Predictor
) -> None:
    priorities: dict[str, Priority] = {"late": "off-peak", "usual": "normal", "now": "urgent"}
    with watching(inbox, predictor, priorities, hour=22) as watch:
        ended = until_settled(watch, inbox)
    assert [name for name, _ in ended] == ["now", "usual", "late"]
    assert all(outcome.status == "done" for _, outcome in ended)


def test_off_peak_work_waits_for_its_hours(inbox: Inbox, predictor: Predictor) -> None:
    with watching(inbox, predictor, {"late": "off-peak"}, hour=12) as watch:
        assert list(watch.step()) == []
        [waiting] = watch.snapshot().studies
        assert (waiting.state, waiting.why) == ("queued", "until 20:00-06:00")
        assert read_snapshot(inbox.root.parent) is not None
        watch.clock = lambda: at(3)
        [(_, outcome)] = until_settled(watch, inbox)
    assert outcome.status == "done"


@pytest.mark.parametrize(("hour", "is_open"), [(19, False), (20, True), (0, True), (6, False)])
def test_hours_go_over_midnight(hour: int, is_open: bool) -> None:
    assert NIGHT.include(datetime(2026, 1, 1, hour).time()) is is_open


def test_study_that_no_route_takes_is_settled_and_left_alone(
    inbox: Inbox, predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    with watching(inbox, predictor, {"ct": "normal"}) as watch:
        [route] = watch.routes
        watch.routes = [Route("ct", route.run, SeriesQuery(("CT",)), NO_WAIT)]
        assert list(watch.step()) == []
        assert inbox.arrivals() == []
    assert "no rule takes any of its series" in caplog.text


def test_latency_is_counted_from_the_last_slice(inbox: Inbox, predictor: Predictor) -> None:
    with watching(inbox, predictor, {"now": "urgent"}) as watch:
        until_settled(watch, inbox)
        median, late = watch.snapshot().latencies_s
    assert median == late > 3600.0  # by a clock of tomorrow


def test_study_from_before_the_watch_is_recorded_and_not_counted(
    inbox: Inbox, predictor: Predictor
) -> None:
    with watching(inbox, predictor, {"now": "urgent"}, started=at(1)) as watch:
        [(_, outcome)] = until_settled(watch, inbox)
        assert watch.snapshot().latencies_s == ()
        [route] = watch.routes
        [_, row] = (route.run.out_dir / TIMES_FILE).read_text(encoding="utf-8").splitlines()
    assert row.startswith(f"{outcome.study},done,")


def test_percentiles_are_values() -> None:
    assert percentiles([]) == ()
    assert percentiles([3.0]) == (3.0, 3.0)
    assert percentiles(map(float, range(1, 101))) == (50.0, 95.0)
