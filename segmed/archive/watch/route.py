"""A route of a watch: which studies it takes, when, and the run that segments them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, time
from typing import Literal, get_args

from segmed.archive.query import SeriesQuery
from segmed.archive.run import Run
from segmed.archive.watch.arrival import Arrival, Completeness

Priority = Literal["urgent", "normal", "off-peak"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
"""Priorities, the most urgent first."""


@dataclass(frozen=True)
class Hours:
    """Hours of a day, such as 20:00 to 06:00; the end may be on the next day.

    Attributes:
        start: First moment.
        end: First moment after.
    """

    start: time
    end: time

    def __str__(self) -> str:
        """As a file of rules has it."""
        return f"{self.start:%H:%M}-{self.end:%H:%M}"

    def include(self, moment: time) -> bool:
        """Return whether a time of the day is within."""
        if self.start <= self.end:
            return self.start <= moment < self.end
        return moment >= self.start or moment < self.end


NIGHT = Hours(time(20), time(6))


@dataclass(frozen=True)
class Route:
    """Studies that a model segments, and their priority.

    Attributes:
        name: Name in lists.
        run: The run; its source reads what the feed of the watch finds.
        query: Series that it takes; a study without any is not its concern.
        complete: Rules by which a study is complete.
        priority: `urgent` before `normal`; `off-peak` last and only in `hours`.
        hours: Off-peak hours, local time.
    """

    name: str
    run: Run
    query: SeriesQuery = field(default_factory=SeriesQuery)
    complete: Completeness = field(default_factory=Completeness)
    priority: Priority = "normal"
    hours: Hours = NIGHT

    def concerns(self, arrival: Arrival) -> bool:
        """Return whether a study has a series that this route takes."""
        return bool(self.query.select(arrival.series))

    def is_open(self, now: float) -> bool:
        """Return whether work may begin at a time, in s since 1970."""
        if self.priority != "off-peak":
            return True
        return self.hours.include(datetime.fromtimestamp(now).astimezone().time())


@dataclass
class Ticket:
    """A study in the queue of a route.

    Attributes:
        ref: Reference of the study in the feed.
        name: Short hash of the study.
        route: The route.
        since: Time when it entered the queue, in s since 1970.
        last: Time of the last change of the study, in s since 1970.
        fault: Why it is refused although it could be read; empty if not.
        state: State of the study when work began; empty before.
        units: Units of work that were not taken yet.
        keys: When work began on each unit in hand, by its key.
        is_listed: All units were taken.
        has_failed: A unit has failed, and is worth another try.
    """

    ref: str = field(repr=False)
    name: str
    route: Route
    since: float
    last: float
    fault: str = ""
    state: str = ""
    units: Iterator[object] | None = None
    keys: dict[str, float] = field(default_factory=dict)
    is_listed: bool = False
    has_failed: bool = False

    @property
    def order(self) -> tuple[int, float]:
        """Place in the queue: by priority, then by arrival."""
        return PRIORITIES.index(self.route.priority), self.since
