"""Server processes that import the readers once, and fork a child for each request.

A request is one file, or a batch of small ones (`segmed.io.batches`). A child starts in
milliseconds, and what a file does to it ends with it: the server itself never opens a file, so
nothing of one request reaches the next.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from pathlib import Path

from segmed.io.process_mark import process_mark

MAX_IDLE = 4
"""Servers kept for later; more, of a burst of threads, end after their file."""

END_WAIT_S = 2.0

_HOME = Path(__file__).resolve().parents[2]
_START = """
import pathlib, sys, types
root = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(root))
# A substitute for the package: its real __init__ imports MONAI, which takes seconds.
package = types.ModuleType("segmed.io")
package.__path__ = [str(root / "segmed" / "io")]
sys.modules["segmed.io"] = package
from segmed.io.isolated_child import serve
serve()
"""
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Libraries that start threads at import must not: a fork takes only one along."""


class ForkServer:
    """One server and the pipes to it; serves one request at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START, str(_HOME)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_ONE_THREAD},
            start_new_session=True,  # its own group: it and its child are killed as one
        )

    @property
    def is_alive(self) -> bool:
        """Return whether it can take another request."""
        return self._process.poll() is None

    def serve(self, folder: Path, timeout_s: float) -> int | None:
        """Have a child serve the request in a folder.

        Args:
            folder: As for `isolated_child.main`.
            timeout_s: Longest wait, in s; then server and child are killed.

        Returns:
            Exit status of the child, or of the server if it died; minus a signal's number where
            that ended it. None: killed for taking too long.
        """
        requests, answers = self._process.stdin, self._process.stdout
        if requests is None or answers is None:  # never: both are pipes
            raise RuntimeError("a reading process without pipes: start it again")
        try:
            requests.write(json.dumps(str(folder)).encode() + b"\n")
            requests.flush()
        except BrokenPipeError:
            return self._process.wait()
        with selectors.DefaultSelector() as selector:
            selector.register(answers, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                self.kill()
                return None
        answer = answers.readline()
        return int(answer) if answer else self._process.wait()

    def kill(self) -> None:
        """End the server and its child at once."""
        if self.is_alive:
            os.killpg(self._process.pid, signal.SIGKILL)
        self.end()

    def end(self) -> None:
        """Let the server end; kill it where it does not."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # what was unsent is of no interest any more
        try:
            self._process.wait(END_WAIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


_lock = threading.Lock()
_idle: dict[tuple[str, str], list[ForkServer]] = {}
"""Servers to be used again, by the process that started them and the interpreter they run."""


def run_isolated(folder: Path, timeout_s: float) -> int | None:
    """Serve one request in a fresh child; see `ForkServer.serve`. Threads may call it at once."""
    key = (process_mark(), sys.executable)  # a forked process must not talk over its parent's pipes
    with _lock:
        waiting = _idle.setdefault(key, [])
        server = waiting.pop() if waiting else None
    if server is None or not server.is_alive:
        server = ForkServer()
    status = server.serve(folder, timeout_s)
    with _lock:
        keep = server.is_alive and len(_idle[key]) < MAX_IDLE
        if keep:
            _idle[key].append(server)
    if not keep:
        server.end()
    return status


@atexit.register
def end_servers() -> None:
    """End all servers of this process."""
    with _lock:
        mine = [key for key in _idle if key[0] == process_mark()]
        servers = [server for key in mine for server in _idle.pop(key)]
    for server in servers:
        server.end()
