"""The sandbox processes that a test starts, one of which can be held or killed at a chosen file."""

from __future__ import annotations

import importlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest


class SandboxProcesses:
    """Requests to sandbox processes, in the order in which these were started.

    Attributes:
        requests: One a process.
        fatal: Files at which every process that reads an image from them ends.
    """

    def __init__(self, real: Callable[[Path, float], int | None]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.fatal: set[Path] = set()
        self._real = real
        self._held_at: int | None = None
        self._is_killed = False

    @property
    def files(self) -> list[list[str]]:
        """Names of the files that each process was given."""
        return [
            [Path(path).name for path, _ in one.get("batch", [[one.get("path"), None]])]
            for one in self.requests
        ]

    def hold(self, number: int) -> None:
        """Hold the next process that reads a batch at one of its files, counted from 0."""
        self._held_at, self._is_killed = number, False

    def kill(self, number: int) -> None:
        """Kill the next process that reads a batch while it is held at one of its files."""
        self._held_at, self._is_killed = number, True

    def run(self, folder: Path, timeout_s: float) -> int | None:
        """Serve a request as `run_isolated` does."""
        request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
        self.requests.append(request)
        for number, (path, _) in enumerate(request.get("batch", [])):
            if Path(path) in self.fatal:
                (folder / f"{number}.npy").mkdir()  # cannot be written: an error nothing catches
        if Path(request.get("path", "")) in self.fatal:
            (folder / "array.npy").mkdir()
        if self._held_at is None or "batch" not in request:
            return self._real(folder, timeout_s)
        number, self._held_at = self._held_at, None
        os.mkfifo(folder / f"{number}.npy")  # written to, it waits for a reader
        ended = threading.Event()
        killer = threading.Thread(target=_kill_at, args=(folder, number, ended))
        if self._is_killed:
            killer.start()
        try:
            return self._real(folder, timeout_s)
        finally:
            ended.set()
            if self._is_killed:
                killer.join()


def _kill_at(folder: Path, number: int, ended: threading.Event) -> None:
    """Kill the process that reads a batch as soon as it has answered to so many files."""
    place = folder / "answers.jsonl"
    while not ended.wait(0.002):
        if not place.is_file() or place.read_bytes().count(b"\n") < number:
            continue
        for reader in _readers():
            if str(place) in {file.path for file in reader.open_files()}:
                reader.kill()
                return


def _readers() -> list[psutil.Process]:
    return [reader for server in psutil.Process().children() for reader in server.children()]


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> SandboxProcesses:
    """The sandbox processes of a test."""
    isolated = importlib.import_module("segmed.io.isolated")  # not before a test needs it
    processes = SandboxProcesses(isolated.run_isolated)
    monkeypatch.setattr(isolated, "run_isolated", processes.run)
    return processes
