"""The loop of a watch: complete studies enter a queue, the most urgent is segmented next.

The ledger of each route claims: a study is segmented once for each content. What this loop keeps in
memory is found again after a kill, by the feed and the ledger.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from segmed.archive.segment import write_records
from segmed.archive.study import NotImage, Study, StudyOutcome
from segmed.archive.watch.arrival import Arrival, Feed
from segmed.archive.watch.route import Route, Ticket
from segmed.archive.watch.snapshot import Snapshot, SnapshotFile, WaitingStudy
from segmed.archive.watch.times import (
    LatencyStatistics,
    Moments,
    StudyTimes,
    WatchedOutcome,
    note_times,
    study_times,
)
from segmed.errors import AccessDeniedError, ServiceError
from segmed.inference.fault import InputFault

log = logging.getLogger(__name__)

INCOMPLETE = "incomplete"
NO_ROUTE = "no rule takes any of its series"


@dataclass(frozen=True)
class WatchOptions:
    """Manners of a watch.

    Attributes:
        in_hand: Units of work in hand at once, over all routes: few, so that an urgent study waits
            for few others.
        retry_s: Time after which a failed study is tried again, in s.
        records_s: Time between two writings of the records of a route, in s.
        keep_s: Time after which images of settled studies are removed, in s; None for ever.
        tick_s: Time between two looks at arrivals and results, in s.
        place: Entered while there is work, such as a reservation of the GPU.
    """

    in_hand: int = 3
    retry_s: float = 300.0
    records_s: float = 60.0
    keep_s: float | None = None
    tick_s: float = 0.1
    place: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass
class Watch:
    """A watch: a feed of arriving studies, and routes that segment them.

    Attributes:
        feed: Source of arriving studies.
        routes: Routes; a study goes to each that takes one of its series.
        out_dir: Folder of the snapshot of the queue.
        options: Manners.
        clock: Time in s since 1970.
    """

    feed: Feed
    routes: Sequence[Route]
    out_dir: Path
    options: WatchOptions = field(default_factory=WatchOptions)
    clock: Callable[[], float] = time.time
    _queue: list[Ticket] = field(default_factory=list)
    _done: dict[tuple[str, str], str] = field(default_factory=dict)
    _again: dict[tuple[str, str], float] = field(default_factory=dict)
    _waiting: list[WaitingStudy] = field(default_factory=list)
    _written: dict[str, float] = field(default_factory=dict)
    _unwritten: set[str] = field(default_factory=set)
    _place: ExitStack = field(default_factory=ExitStack)
    _has_place: bool = False
    _latencies: LatencyStatistics = field(default_factory=LatencyStatistics)
    _quiet_server: str = ""
    _tidied: float = 0.0

    def __post_init__(self) -> None:
        """Prepare the file of the queue."""
        self._started = self.clock()
        self._snapshots = SnapshotFile(self.out_dir)

    def outcomes(self) -> Iterator[tuple[str, WatchedOutcome]]:
        """Name of the route and outcome of each unit of work as it ends; without an end.

        Raises:
            AccessDeniedError: A server refuses the caller.
        """
        try:
            while True:
                yield from self.step()
                time.sleep(self.options.tick_s)
        finally:
            self._place.close()
            self._snapshots.write(self.snapshot(is_running=False))

    def step(self) -> Iterator[tuple[str, WatchedOutcome]]:
        """Book what has ended, look at what has arrived, and begin what is due."""
        for route in self.routes:
            for outcome in route.run.ended():
                yield route.name, self._note(route, outcome)
        self._look()
        self._begin()
        self._keep_records()
        self._snapshots.write(self.snapshot())

    def snapshot(self, *, is_running: bool = True) -> Snapshot:
        """The queue as it is."""
        queued = [
            WaitingStudy(
                study=ticket.name,
                route=ticket.route.name,
                state="in work" if ticket.units is not None else "queued",
                why="" if ticket.route.is_open(self.clock()) else f"until {ticket.route.hours}",
                since=ticket.since,
            )
            for ticket in sorted(self._queue, key=lambda ticket: ticket.order)
        ]
        return Snapshot(
            is_running=is_running,
            server=self._quiet_server,
            studies=(*queued, *self._waiting),
            routes={
                route.name: str(route.run.out_dir.relative_to(self.out_dir))
                for route in self.routes
            },
            latencies_s=self._latencies.whole_s,
            parts_s=self._latencies.parts_s,
        )

    def _look(self) -> None:
        """Put the studies that are complete into the queue."""
        try:
            arrivals = self.feed.arrivals()
            self._quiet_server = ""
        except AccessDeniedError:
            raise
        except ServiceError as error:
            if not self._quiet_server:
                log.warning("%s; it is asked again", error)
            self._quiet_server = str(error)
            return
        self._waiting.clear()
        for arrival in arrivals:
            routes = [route for route in self.routes if route.concerns(arrival)]
            states = [self._is_settled(arrival, route) for route in routes]
            if all(states) and self._is_quiet(arrival):
                self._settle(arrival, routes)

    def _is_settled(self, arrival: Arrival, route: Route) -> bool:
        """Return whether a route is done with a study; else it waits, is queued or in work."""
        if any(one.ref == arrival.ref and one.route is route for one in self._queue):
            return False
        now, key = self.clock(), (arrival.ref, route.name)
        verdict, why = route.complete.judge(arrival, now)
        if verdict == "arriving":
            self._wait_for(arrival, route.name, "arriving", why)
            return False
        if self._again.get(key, 0.0) > now:
            self._wait_for(arrival, route.name, "failed", "tried again later")
            return False
        if self._done.get(key) == self.feed.state_of(arrival.ref):
            return True
        fault = why if verdict == "overdue" else ""
        self._queue.append(Ticket(arrival.ref, arrival.name, route, now, arrival.last, fault))
        return False

    def _is_quiet(self, arrival: Arrival) -> bool:
        """Return whether a study that no route waits for has come to an end, too."""
        complete = min((route.complete.quiet_s for route in self.routes), default=0.0)
        return arrival.is_stable or self.clock() - arrival.last >= complete

    def _wait_for(self, arrival: Arrival, route: str, state: str, why: str) -> None:
        self._waiting.append(WaitingStudy(arrival.name, route, state, why, arrival.first))

    def _settle(self, arrival: Arrival, routes: Sequence[Route]) -> None:
        if not routes:
            log.warning("study %s is left alone: %s", arrival.name, NO_ROUTE)
        state = self.feed.state_of(arrival.ref)
        if all(self._done.get((arrival.ref, route.name)) == state for route in routes):
            self.feed.settle(arrival.ref, state)
            for route in routes:
                del self._done[arrival.ref, route.name]

    def _begin(self) -> None:
        """Take units of work while there is room for them, the most urgent first."""
        due = [one for one in self._queue if not one.is_listed and self._is_due(one)]
        for ticket in sorted(due, key=lambda ticket: ticket.order):
            while self._num_in_hand < self.options.in_hand and self._take_next(ticket):
                pass
        self._queue = [ticket for ticket in self._queue if not self._is_done(ticket)]
        if self._has_place and not self._num_in_hand:
            self._place.close()
            self._has_place = False

    def _is_due(self, ticket: Ticket) -> bool:
        return ticket.units is not None or ticket.route.is_open(self.clock())

    @property
    def _num_in_hand(self) -> int:
        return sum(route.run.in_hand for route in self.routes)

    def _take_next(self, ticket: Ticket) -> bool:
        """Take the next unit of a study; returns False if there is none."""
        run = ticket.route.run
        if not self._has_place:
            self._place.enter_context(self.options.place())
            self._has_place = True
        try:
            if ticket.units is None:
                ticket.state = self.feed.state_of(ticket.ref)  # before its files are listed
                run.begin_round()
                ticket.units = self.feed.units(ticket.ref, run.source)
            unit = next(ticket.units, None)
        except AccessDeniedError:
            raise
        except ServiceError as error:
            log.warning("study %s cannot be listed: %s", ticket.name, error)
            ticket.has_failed = ticket.is_listed = True
            return False
        if unit is None:
            ticket.is_listed = True
            return False
        assert isinstance(unit, Study | NotImage)
        if ticket.fault and isinstance(unit, Study) and unit.fault is None:
            unit = replace(unit, fault=InputFault(INCOMPLETE, ticket.fault))
        begun = self.clock()
        key = run.take(unit)
        if key is not None:
            ticket.keys[key] = begun
        return True

    def _is_done(self, ticket: Ticket) -> bool:
        """Return whether all of a study has ended, and note how."""
        if ticket.keys or not ticket.is_listed:
            return False
        key = (ticket.ref, ticket.route.name)
        if ticket.has_failed:
            self._again[key] = self.clock() + self.options.retry_s
        else:
            self._again.pop(key, None)
            self._done[key] = ticket.state
        ticket.route.run.ledger.commit()
        return True

    def _note(self, route: Route, outcome: StudyOutcome) -> WatchedOutcome:
        """Book the end of a unit of work; returns it with its times."""
        self._unwritten.add(route.name)
        times: StudyTimes | None = None
        for ticket in self._queue:
            if ticket.route is route and outcome.key in ticket.keys:
                begun = ticket.keys.pop(outcome.key)
                if outcome.fresh and times is None:
                    times = self._measured(ticket, outcome, begun)
                ticket.has_failed |= outcome.status not in {"done", "refused"}
        return WatchedOutcome(**vars(outcome), times=times)

    def _measured(self, ticket: Ticket, outcome: StudyOutcome, begun: float) -> StudyTimes:
        """Times of a unit of work, recorded; a study from before the watch waited for its start."""
        now, run = self.clock(), ticket.route.run
        moments = Moments(ticket.last, ticket.since, begun, now)
        times = study_times(outcome, moments, run.transfers)
        note_times(run.out_dir, outcome, times, now)
        if outcome.status == "done" and ticket.last >= self._started:
            self._latencies.add(times)
        return times

    def _keep_records(self) -> None:
        """Write index, table and page of the routes that have new results and no work; tidy up."""
        now = self.clock()
        if self.options.keep_s is not None and now - self._tidied >= self.options.records_s:
            self._tidied = now
            self.feed.remove_settled(self.options.keep_s)
        for route in self.routes:
            is_late = now - self._written.get(route.name, 0.0) >= self.options.records_s
            if route.name in self._unwritten and not route.run.in_hand and is_late:
                self._begin_day(route, now)
                write_records(route.run, goes_on=True)
                self._written[route.name] = self.clock()
                self._unwritten.discard(route.name)

    def _begin_day(self, route: Route, now: float) -> None:
        """End the run of an earlier day: a page, and the watch for drift, are about one day."""
        run = route.run
        begun = run.ledger.started(run.ledger.first_round_of(run.number))
        if datetime.fromtimestamp(begun).date() != datetime.fromtimestamp(now).date():
            write_records(run)
            run.ledger.end_run(run.number)
            run.begin_round(is_first=True)
