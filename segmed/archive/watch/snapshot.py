"""The queue of a watch as a file, for other processes: the review page, metrics, `--json`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from segmed.io.atomic import write_whole

SNAPSHOT_FILE = "watch.json"
STALE_S = 30.0
"""Age at which a snapshot is of a watch that died, in s."""

STATES_OF_QUEUE = ("arriving", "queued", "in work", "failed")
"""States of a study without a result; a failed one is tried again."""

REFRESH_S = 5.0
"""Time after which an unchanged snapshot is written again, in s."""


@dataclass(frozen=True)
class WaitingStudy:
    """A study in the queue; its name is a hash.

    Attributes:
        study: Short hash of the study.
        route: Name of the route.
        state: `arriving`, `queued`, `in work` or `failed`.
        why: Reason of the state, in words.
        since: Time when it was first seen, or entered the queue, in s since 1970.
    """

    study: str
    route: str
    state: str
    why: str
    since: float


@dataclass(frozen=True)
class Snapshot:
    """The queue of a watch.

    Attributes:
        is_running: The watch goes on.
        server: Fault of the server that is watched; empty if it answers.
        studies: Studies in the queue, then those that are arriving.
        routes: Folder of each route, relative to that of the watch, by its name.
        latencies_s: Median and 95th percentile of the time from the last change of a study to its
            end, over the last studies, in s; empty before the first.
        parts_s: The same of each part of that time, by its name.
        written: Time of the snapshot, in s since 1970.
    """

    is_running: bool
    server: str = ""
    studies: tuple[WaitingStudy, ...] = ()
    routes: dict[str, str] = field(default_factory=dict)
    latencies_s: tuple[float, ...] = ()
    parts_s: dict[str, tuple[float, ...]] = field(default_factory=dict)
    written: float = 0.0

    @property
    def is_alive(self) -> bool:
        """Return whether the watch was at work a moment ago."""
        return self.is_running and time.time() - self.written < STALE_S

    def count(self, state: str) -> int:
        """Number of studies in a state."""
        return sum(study.state == state for study in self.studies)


class SnapshotFile:
    """The file of a queue, written where the queue has changed, or the file is growing old.

    Args:
        out_dir: Output folder of the watch.
    """

    def __init__(self, out_dir: Path) -> None:
        self._path = out_dir / SNAPSHOT_FILE
        self._last = Snapshot(is_running=False)

    def write(self, snapshot: Snapshot) -> None:
        """Write a snapshot."""
        now = time.time()
        is_fresh = now - self._last.written < REFRESH_S
        if is_fresh and replace(snapshot, written=self._last.written) == self._last:
            return
        self._last = replace(snapshot, written=now)
        write_whole(self._path, json.dumps(asdict(self._last)), private=True)


def read_snapshot(out_dir: Path) -> Snapshot | None:
    """The last snapshot of a watch; None if there is none."""
    try:
        record = json.loads((out_dir / SNAPSHOT_FILE).read_bytes())
        studies = tuple(WaitingStudy(**entry) for entry in record.pop("studies"))
        latencies = tuple(record.pop("latencies_s", ()))
        return Snapshot(**record, studies=studies, latencies_s=latencies)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def watch_folder(out_dir: Path) -> Path | None:
    """Folder of the watch that an output folder belongs to: itself or one above; None if none.

    Args:
        out_dir: Output folder of a watch, of one of its rules, or of a model of a rule.
    """
    for folder in (out_dir.resolve(), *list(out_dir.resolve().parents)[:2]):
        if (folder / SNAPSHOT_FILE).is_file():
            return folder
    return None
