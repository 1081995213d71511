"""The queue of a watch as a file, for other processes: the review page, metrics, `--json`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from segmed.io.atomic import write_whole

SNAPSHOT_FILE = "watch.json"
STALE_S = 30.0
"""Age at which a snapshot is of a watch that died, in s."""

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
        written: Time of the snapshot, in s since 1970.
    """

    is_running: bool
    server: str = ""
    studies: tuple[WaitingStudy, ...] = ()
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
        return Snapshot(**record, studies=studies)
    except (OSError, ValueError, TypeError, KeyError):
        return None
