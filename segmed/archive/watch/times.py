"""Time from the last change of a study to its result, by its parts, and the record of it.

The parts add up to the whole:

- `arriving`: from the last slice until the study entered the queue: the time of quiet, and the
  time until a server was asked;
- `queued`: until work on it began;
- `fetching`: transfer of its images from a server;
- `segmenting`: reading, preparing, network and writing;
- `sending`: delivery of the result and its reports;
- `other`: waiting between these, and the records.
"""

from __future__ import annotations

import csv
import io
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path

from segmed.archive.study import StudyOutcome
from segmed.archive.transfers import TransferTimes

TIMES_FILE = "times.csv"
"""Times of each study that a route has worked on, in its folder; the newest last."""

LATENCIES = 200
"""Studies over which percentiles are taken."""

QUANTILES = (0.5, 0.95)


@dataclass(frozen=True)
class StudyTimes:
    """Seconds from the last change of a study to its result, by part.

    Attributes:
        arriving: From the last change to the queue.
        queued: In the queue.
        fetching: Fetched from a server.
        segmenting: Read, segmented and written.
        sending: Result and reports sent.
        other: The rest.
    """

    arriving: float
    queued: float
    fetching: float
    segmenting: float
    sending: float
    other: float

    @property
    def total(self) -> float:
        """The whole."""
        return float(sum(asdict(self).values()))

    def __str__(self) -> str:
        """As lines about studies have it; parts below 50 ms are left out."""
        parts = ", ".join(f"{name} {s:.1f}" for name, s in asdict(self).items() if s >= 0.05)
        return f"{self.total:.1f} s after its last image ({parts})"


PARTS = tuple(part.name for part in fields(StudyTimes))


@dataclass(frozen=True)
class WatchedOutcome(StudyOutcome):
    """Outcome of a unit of work of a watch.

    Attributes:
        times: Its times; None where it was found settled.
    """

    times: StudyTimes | None = None


@dataclass(frozen=True)
class Moments:
    """Moments of a unit of work, in s since 1970.

    Attributes:
        last: Last change of its study.
        since: Its study entered the queue.
        begun: Work on it began.
        ended: It ended.
    """

    last: float
    since: float
    begun: float
    ended: float


def study_times(outcome: StudyOutcome, moments: Moments, transfers: TransferTimes) -> StudyTimes:
    """Times of a unit of work that has ended.

    Args:
        outcome: How it ended.
        moments: Its moments.
        transfers: Seconds of its transfers, which are taken from there.
    """
    fetching = transfers.taken(outcome.key, "fetching")
    sending = transfers.taken(outcome.key, "sending")
    known = fetching + outcome.seconds + sending
    return StudyTimes(
        arriving=max(moments.since - moments.last, 0.0),
        queued=moments.begun - moments.since,
        fetching=fetching,
        segmenting=outcome.seconds,
        sending=sending,
        other=max(moments.ended - moments.begun - known, 0.0),
    )


def note_times(out_dir: Path, outcome: StudyOutcome, times: StudyTimes, ended: float) -> None:
    """Add a line to the record of a route.

    Args:
        out_dir: Folder of the route.
        outcome: How the study ended; it is named by its hash.
        times: Its times.
        ended: When, in s since 1970.
    """
    path = out_dir / TIMES_FILE
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    if not path.is_file():
        table.writerow(["study", "status", "ended", "total_s", *(f"{part}_s" for part in PARTS)])
    seconds = [times.total, *asdict(times).values()]
    moment = datetime.fromtimestamp(ended).astimezone().isoformat(timespec="seconds")
    table.writerow([outcome.study, outcome.status, moment, *(f"{s:.3f}" for s in seconds)])
    with path.open("a", encoding="utf-8") as stream:
        stream.write(text.getvalue())
    path.chmod(0o600)


@dataclass
class LatencyStatistics:
    """Percentiles over the last studies."""

    _times: deque[StudyTimes] = field(default_factory=lambda: deque(maxlen=LATENCIES))

    def add(self, times: StudyTimes) -> None:
        """Count a study."""
        self._times.append(times)

    @property
    def whole_s(self) -> tuple[float, ...]:
        """Median and 95th percentile of the whole time; empty without any study."""
        return percentiles(times.total for times in self._times)

    @property
    def parts_s(self) -> dict[str, tuple[float, ...]]:
        """Median and 95th percentile of each part; empty without any study."""
        if not self._times:
            return {}
        return {part: percentiles(getattr(t, part) for t in self._times) for part in PARTS}


def percentiles(
    values: Iterable[float], quantiles: Sequence[float] = QUANTILES
) -> tuple[float, ...]:
    """Median and 95th percentile, each one of the values; empty without any."""
    ordered = sorted(values)
    if not ordered:
        return ()
    return tuple(ordered[math.ceil(share * len(ordered)) - 1] for share in quantiles)
