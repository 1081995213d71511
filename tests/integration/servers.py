"""Real servers in processes of their own, started, killed and started again by tests."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

START_SECONDS = 150.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A server process and how to tell that it answers."""

    command: list[str]
    health: str
    log: Path
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.env},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(
                    f"server did not start: {self.log.read_text(encoding='utf-8')[-2000:]}"
                )
            time.sleep(0.3)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.health, timeout=2):
                return True
        except urllib.error.HTTPError as error:
            return error.code == 401
        except OSError:
            return False

    def stop(self, sig: int = signal.SIGKILL) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, sig)
            self.process.wait(timeout=60)
            self.process = None


def mlflow_server(folder: Path, *, backend: str | None = None, auth: bool = False) -> Server:
    """An MLflow server with artifact proxying; not started yet."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    backend = backend or f"sqlite:///{folder / 'server.db'}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--backend-store-uri", backend, "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--serve-artifacts"]
    env = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    env["MLFLOW_TRACKING_URI"] = ""
    if auth:
        ini = folder / "auth.ini"
        ini.write_text(
            "[mlflow]\ndefault_permission = READ\n"
            f"database_uri = sqlite:///{folder / 'auth.db'}\n"
            "admin_username = admin\nadmin_password = long-test-password-1\n"
            "authorization_function = "
            "mlflow.server.auth:authenticate_request_basic_auth\n",
            encoding="utf-8",
        )
        command += ["--app-name", "basic-auth"]
        env |= {"MLFLOW_AUTH_CONFIG_PATH": str(ini), "MLFLOW_FLASK_SERVER_SECRET_KEY": "test"}
    return Server(command, f"http://127.0.0.1:{port}/health", folder / "mlflow.log", env)


def uri_of(server: Server) -> str:
    return server.health.removesuffix("/health")


def prefect_server(folder: Path) -> Server:
    """A Prefect server on SQLite; not started yet."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
    command += ["--port", str(port)]
    env = {"PREFECT_HOME": str(folder), "DO_NOT_TRACK": "1", "PREFECT_API_URL": ""}
    env["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    leases = "prefect.server.concurrency.lease_storage.filesystem"
    env["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"] = leases  # as docker/compose.yaml has it
    return Server(command, f"http://127.0.0.1:{port}/api/health", folder / "prefect.log", env)
