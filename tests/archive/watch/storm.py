"""A watch in a process that is killed, and senders that storm it."""

from __future__ import annotations

import io
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import pydicom
import torch
from fresh_processes import fresh_process
from pynetdicom import AE, AllStoragePresentationContexts

from segmed.archive import FolderSource, Ledger, RunOptions
from segmed.archive.segment import open_run
from segmed.archive.watch import inbox as received
from segmed.archive.watch.arrival import Completeness
from segmed.archive.watch.inbox import Inbox
from segmed.archive.watch.loop import Watch, WatchOptions
from segmed.archive.watch.node import inbox_of, receiving
from segmed.archive.watch.route import Route
from segmed.archive.watch.snapshot import read_snapshot
from segmed.inference import Predictor
from segmed.package import ModelPackage

TITLE = "WATCHTEST"
WITHIN_S = 120.0
"""Longest wait for anything, on a loaded machine."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class WatchProcess:
    """A watch in a process of its own."""

    out: Path
    package: Path
    complete: Completeness = field(default_factory=lambda: Completeness(quiet_s=0.5))
    port: int = field(default_factory=free_port)
    process: BaseProcess | None = None

    def start(self) -> None:
        self.process = fresh_process(_watch, self.out, self.package, self.complete, self.port)
        self.process.start()
        wait_for(self._listens)

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid or 0, signal.SIGKILL)
        self.process.join()

    @contextmanager
    def running(self) -> Iterator[WatchProcess]:
        self.start()
        try:
            yield self
        finally:
            self.kill()

    def wait_until_settled(self, studies: int) -> None:
        """Wait until so many studies, and all that have arrived, are settled."""
        wait_for(lambda: num_settled(self.out) == studies and is_idle(self.out))

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def _watch(out: Path, package: Path, complete: Completeness, port: int) -> None:
    """Watch until killed."""
    torch.set_num_threads(1)
    root = inbox_of(out)
    with open_run(
        FolderSource(root),
        predictor=Predictor(ModelPackage.load(package), device="cpu", engine="torch"),
        out_dir=out,
        options=RunOptions(min_free_bytes=0, most_unanswered=float("inf")),
    ) as run:
        inbox = Inbox(root)
        options = WatchOptions(tick_s=0.02, retry_s=1.0, records_s=0.0)
        watch = Watch(inbox, [Route("watch", run, complete=complete)], out, options)
        with receiving(inbox, title=TITLE, host="127.0.0.1", port=port, min_free_bytes=0):
            for _ in watch.outcomes():
                pass


def wait_for(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + WITHIN_S
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


def num_settled(out: Path) -> int:
    return sum(1 for path in (inbox_of(out) / ".settled").glob("[!.]*"))


def is_idle(out: Path) -> bool:
    """True if the watch waits for nothing, and its inbox has no unsettled study."""
    found = read_snapshot(out)
    if found is None or found.studies:
        return False
    studies = (path for path in inbox_of(out).glob("[!.]*") if path.is_dir())
    return all(received._is_settled(study) for study in studies)


def send(port: int, files: Sequence[Path]) -> list[Path]:
    """Send instances over one association; returns those that were thanked for."""
    entity = AE(ae_title="STORM")
    entity.requested_contexts = AllStoragePresentationContexts[:120]
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 30
    found = entity.associate("127.0.0.1", port, ae_title=TITLE)
    if not found.is_established:
        return []
    thanked = []
    try:
        for path in files:
            if not found.is_established:
                break
            status = found.send_c_store(pydicom.dcmread(path))
            if status.get("Status") == 0x0000:
                thanked.append(path)
    except (RuntimeError, ValueError):
        pass  # the node was killed in the midst
    finally:
        if found.is_established:
            found.release()
    return thanked


def storescu(port: int, files: Sequence[Path]) -> subprocess.CompletedProcess[str]:
    """Send instances by dcmtk's program."""
    return subprocess.run(
        ["storescu", "-aec", TITLE, "-aet", "STORM", "127.0.0.1", str(port), *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
        encoding="utf-8",
    )


def storm(watch: WatchProcess, files: Sequence[Path], *, kills: int, seed: int) -> list[Path]:
    """Send every instance at least once, some twice, while the watch is killed so often.

    Returns:
        The files that were thanked for, in order.
    """
    moments = random.Random(seed)
    left = list(files)
    thanked: list[Path] = []
    killed = 0
    while left or killed < kills:
        part = left[: moments.randint(1, 6)] or [moments.choice(thanked)]
        got = send(watch.port, [*part, *moments.sample(thanked, min(2, len(thanked)))])
        thanked += got
        left = [path for path in left if path not in got]
        if killed < kills and moments.random() < max(0.2, kills / (1 + len(files))):
            time.sleep(moments.uniform(0.0, 0.3))
            watch.kill()
            killed += 1
            kept = {path.read_bytes() for path in inbox_of(watch.out).rglob("[!.]*.dcm")}
            assert {data_of(content) for content in kept} >= {
                data_of(path.read_bytes()) for path in thanked
            }
            watch.start()
    return thanked


def data_of(content: bytes) -> str:
    """SOPInstanceUID and pixels of an instance, whatever its meta information is."""
    found = pydicom.dcmread(io.BytesIO(content))
    return f"{found.SOPInstanceUID} {hash(found.PixelData)}"


def done(out: Path) -> dict[str, tuple[str, str | None]]:
    """State and output digest of the entries that were not replaced, by place's series."""
    with Ledger(out / "ledger.sqlite", writer=False) as ledger:
        return {
            entry.key: (entry.state, entry.output_sha256)
            for entry in ledger.entries()
            if entry.state != "replaced"
        }
