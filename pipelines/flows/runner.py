"""Runner of flows from the command line: quiet, on a temporary server if none is named."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from prefect import Flow
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
)

from pipelines.comparing.progress import progress
from segmed.errors import SegmedError, ServiceError
from segmed.full_disk import is_full_disk

INTERRUPT = "aborted by an interrupt signal"
"""Words of Prefect's records about a run that was stopped."""

LOOPBACK = ("127.0.0.1", "localhost")
"""Hosts of a temporary server."""

STARTUP_S = 120
"""Seconds that a temporary server has to start; Prefect's 20 are too few on a busy machine."""

_STARTING = threading.Lock()

P = ParamSpec("P")
R = TypeVar("R")


def run_flow(flow: Flow[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a flow to its end; our errors come out as they are, without Prefect's tracebacks.

    Args:
        flow: The flow.
        args: Its arguments.
        kwargs: Its named arguments.
    """
    _ShieldedServer()  # Prefect takes this one where no server is named
    if progress.level == logging.NOTSET:  # a display has set its own
        progress.setLevel(logging.INFO)
    logging.getLogger("segmed").setLevel(os.environ.get("PREFECT_LOGGING_LEVEL", "INFO"))
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(without_expected_tracebacks)
    return flow(*args, **kwargs)


def start_server_early() -> None:
    """Start the temporary server, if one is needed, while the command loads its libraries."""
    if not PREFECT_API_URL.value():
        threading.Thread(target=_start_early, daemon=True).start()


def _start_early() -> None:
    with suppress(ServiceError):  # the flow starts it again, and its error is shown
        _ShieldedServer().start()


class _ShieldedServer(SubprocessASGIServer):
    """Prefect's temporary server, out of reach of Ctrl-C.

    A terminal sends SIGINT to every process of the command. A server that ends before its client
    leaves the client with retries of a minute and tracebacks of two screens. Prefect keeps one
    server in a process and stops it by SIGTERM when the process ends.
    """

    def start(self, timeout: int | None = None) -> None:
        """Start the server, once; a second caller waits until it answers.

        Args:
            timeout: Seconds to wait for its answer; at least `STARTUP_S` where not given.

        Raises:
            ServiceError: It does not answer in time, or ends.
        """
        seconds = timeout or max(
            STARTUP_S, PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
        )
        with _STARTING:
            reach_loopback_directly()
            try:
                super().start(int(seconds))
            except RuntimeError as error:
                raise ServiceError(
                    f"Prefect's temporary server does not answer ({error}): name a running one by "
                    "PREFECT_API_URL, or see whether this machine is out of memory or disk"
                ) from error

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit it
        try:
            return super()._run_uvicorn_command()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def reach_loopback_directly() -> None:
    """Exempt this machine's own addresses from a proxy, which could not reach the server.

    Both spellings of the variable get all hosts of both: libraries read one and ignore the other.
    """
    spellings = ("no_proxy", "NO_PROXY")
    present = [host for name in spellings for host in os.environ.get(name, "").split(",")]
    hosts = dict.fromkeys([*(host.strip() for host in present if host.strip()), *LOOPBACK])
    os.environ.update(dict.fromkeys(spellings, ",".join(hosts)))


def stop_temporary_server() -> None:
    """End Prefect's temporary server, if one runs, without waiting for it.

    Its database is a file that survives this; it has no other client.
    """
    server = _ShieldedServer()
    if server.server_process is not None:
        server.server_process.kill()


def without_expected_tracebacks(record: logging.LogRecord) -> bool:
    """Strip the traceback of an error that is one line by design; a logging filter.

    What Prefect calls a crash is a stop that was requested where a signal is its reason.
    """
    error: Any = record.exc_info[1] if record.exc_info else None
    if isinstance(error, SegmedError | KeyboardInterrupt) or (error and is_full_disk(error)):
        record.exc_info = None
        record.exc_text = None
    return INTERRUPT not in record.getMessage()
