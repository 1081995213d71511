"""Outbox of MLflow records: first a local file, then the server.

Every record is appended to `<folder>/<key>.jsonl` before anything is sent, and a background thread
sends its records in order. A server that goes away is waited for; what it never took stays
in the file, and `segmed model sync` delivers it later. Sending a record twice does no harm: MLflow
keeps one value for equal name, step, time and value, and a run is found again by its key.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import logging
import math
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from segmed.io.atomic import write_whole

logger = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
"""Pause between two attempts to reach a server that does not answer."""

GATHER_SECONDS = 1.0
"""How long values are gathered before they are sent, so that short epochs share a request."""

GATHERED_RECORDS = 100
"""At most so many records go together."""


class RecordSink(Protocol):
    """Takes records to the server; raises `ConnectionError` where it cannot be reached."""

    def __call__(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Deliver records of one kind, of which only `metrics` come several at a time."""


@dataclass(frozen=True)
class Outbox:
    """The local file of one run and how far it has been delivered.

    Attributes:
        folder: Folder of all outboxes of one working folder.
        key: Name of the run's outbox; also a tag of the run in MLflow.
    """

    folder: Path
    key: str

    @property
    def path(self) -> Path:
        """The records, one JSON object a line."""
        return self.folder / f"{self.key}.jsonl"

    @property
    def _offset_path(self) -> Path:
        return self.folder / f"{self.key}.offset"

    @property
    def files(self) -> Path:
        """Copies of the artifacts that the records name."""
        return self.folder / self.key

    @staticmethod
    def create(folder: Path) -> Outbox:
        """A new, empty outbox."""
        folder.mkdir(parents=True, exist_ok=True)
        outbox = Outbox(folder, uuid.uuid4().hex)
        outbox.path.touch()
        return outbox

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record; values that JSON cannot represent (inf, nan) are refused."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    def trim(self) -> None:
        """Cut off a last line that a kill left without its end."""
        content = self.path.read_bytes()
        with self.path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)

    def keep(self, source: Path) -> str:
        """Copy a file or folder beside the records and give its name there."""
        name = f"{uuid.uuid4().hex[:8]}/{source.name}"
        target = self.files / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
        return name

    def pending(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each whole record that is not delivered, with the offset behind it."""
        yield from self._read_from(self.delivered())

    def records(self) -> list[dict[str, Any]]:
        """Every whole record, delivered or not."""
        return [record for _, record in self._read_from(0)]

    def _read_from(self, offset: int) -> Iterator[tuple[int, dict[str, Any]]]:
        with self.path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):  # cut off by a kill
                    return
                offset += len(line)
                yield offset, json.loads(line)

    def delivered(self) -> int:
        """Bytes of the file that the server has taken."""
        if not self._offset_path.exists():
            return 0
        return int(self._offset_path.read_text(encoding="utf-8"))

    def mark(self, offset: int) -> None:
        """Remember that everything before `offset` is delivered."""
        write_whole(self._offset_path, str(offset))

    def claim(self) -> IO[bytes] | None:
        """Claim the outbox for this process; None where a running process has it.

        The claim ends with the returned file, also when the process is killed.
        """
        handle = self.path.open("rb")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            return None
        return handle

    def is_empty(self) -> bool:
        """Return whether the server has taken every whole record."""
        return next(self.pending(), None) is None

    def discard(self) -> None:
        """Remove the records and the copies of artifacts."""
        shutil.rmtree(self.files, ignore_errors=True)
        self._offset_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def outboxes(folder: Path) -> list[Outbox]:
    """Every remaining outbox of a folder, oldest first."""
    paths = sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
    return [Outbox(folder, path.stem) for path in paths]


def deliver(outbox: Outbox, delivery: RecordSink) -> int:
    """Send what is pending, in order.

    Returns:
        Records sent.

    Raises:
        ConnectionError: The server went away; what it took is remembered.
    """
    sent = 0
    for offset, records in _gathered(outbox.pending()):
        delivery(records)
        outbox.mark(offset)
        sent += len(records)
    return sent


def _gathered(
    pending: Iterable[tuple[int, dict[str, Any]]],
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Neighbouring records of metrics together, all others alone; with the offset behind them."""
    for kind, run in itertools.groupby(pending, key=lambda item: item[1]["kind"]):
        size = GATHERED_RECORDS if kind == "metrics" else 1
        while group := list(itertools.islice(run, size)):
            yield group[-1][0], [record for _, record in group]


class Flusher:
    """A thread that empties one outbox during the training."""

    def __init__(self, outbox: Outbox, delivery: RecordSink) -> None:
        self.outbox = outbox
        self.failure: Exception | None = None
        self._delivery = delivery
        self._pending = threading.Event()
        self._closing = threading.Event()
        self._deadline = math.inf
        self._thread = threading.Thread(target=self._run, name="segmed-flusher", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """Wake the thread: there is something to send."""
        self._pending.set()

    def close(self, *, wait_s: float) -> bool:
        """Send the rest, waiting at most `wait_s` for a server that is away.

        Returns:
            Whether everything was delivered.

        Raises:
            Exception: What the server refused for a reason that waiting does not cure.
        """
        self._deadline = time.monotonic() + wait_s
        self._closing.set()
        self._pending.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure
        return self.outbox.is_empty()

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._pending.wait()
                self._pending.clear()
                self._attempts()
                self._closing.wait(GATHER_SECONDS)
            self._attempts()
        except Exception as failure:  # noqa: BLE001 - handed to the training thread by close()
            self.failure = failure

    def _attempts(self) -> None:
        while True:
            try:
                deliver(self.outbox, self._delivery)
            except ConnectionError as away:
                logger.warning("the tracking server does not answer; values are kept: %s", away)
                if time.monotonic() >= self._deadline:
                    return
                self._closing.wait(RETRY_SECONDS)
                if self._closing.is_set():
                    time.sleep(min(RETRY_SECONDS, max(self._deadline - time.monotonic(), 0.0)))
            else:
                return
