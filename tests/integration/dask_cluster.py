"""A real Dask cluster on this machine: a scheduler and workers, each a process group of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from distributed import Client
from servers import free_port

READY_WITHIN_S = 120.0


@dataclass
class DaskCluster:
    """A scheduler and its workers; workers may be killed."""

    folder: Path
    env: dict[str, str]
    port: int = field(default_factory=free_port)
    scheduler: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def start(self, workers: int) -> None:
        words = ["scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"]
        self.scheduler = self._begin(words, "scheduler.log")
        for _ in range(workers):
            self.add_worker()
        self.wait_for(workers)

    def add_worker(self) -> None:
        number = len(self.workers)
        words = ["worker", self.address, "--nthreads", "2", "--no-dashboard"]
        words += ["--local-directory", str(self.folder / f"worker-{number}")]
        self.workers.append(self._begin(words, f"worker-{number}.log"))

    def wait_for(self, workers: int) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while True:
            with (
                contextlib.suppress(OSError, TimeoutError),
                Client(self.address, timeout=5) as client,
            ):
                client.wait_for_workers(workers, timeout=max(1.0, deadline - time.monotonic()))
                return
            assert time.monotonic() < deadline, self.logs()

    def kill_worker(self, number: int) -> None:
        """SIGKILL to a worker, its nanny and its children at once, as when a machine dies."""
        group = psutil.Process(self.workers[number].pid)
        for process in [group, *group.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self.workers[number].wait()

    def stop(self) -> None:
        for process in [*self.workers, self.scheduler]:
            if process is not None and process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def logs(self) -> str:
        return "\n".join(
            path.read_text(encoding="utf-8")[-1500:] for path in self.folder.glob("*.log")
        )

    def _begin(self, words: list[str], log: str) -> subprocess.Popen[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / log).open("ab") as stream:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *words],
                env=self.env,
                cwd=self.folder,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )


class Watch:
    """Looks again and again at the workers: which model processes they have, what they open."""

    def __init__(self, cluster: DaskCluster) -> None:
        self._cluster = cluster
        self._is_over = threading.Event()
        self.loaders: dict[int, set[int]] = {n: set() for n in range(len(cluster.workers))}
        self.ledgers: set[str] = set()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(0.3):
            for number, worker in enumerate(self._cluster.workers):
                with contextlib.suppress(psutil.Error):
                    for process in psutil.Process(worker.pid).children(recursive=True):
                        self._note(number, process)

    def _note(self, number: int, process: psutil.Process) -> None:
        with contextlib.suppress(psutil.Error):
            if any("segmed.archive.workers.worker" in word for word in process.cmdline()):
                self.loaders[number].add(process.pid)
            opened = [entry.path for entry in process.open_files()]
            self.ledgers.update(path for path in opened if "ledger.sqlite" in path)
