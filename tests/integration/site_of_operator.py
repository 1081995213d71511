"""An operator's site: PostgreSQL, MLflow and Prefect in a folder; `segmed` as people call it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from postgres import Postgres, programs
from servers import Server, mlflow_server, prefect_server, uri_of

REPOSITORY = Path(__file__).resolve().parents[2]
OPERATIONS = REPOSITORY / "docs" / "operations.md"
SEGMED = [sys.executable, "-c", "from pipelines.cli import main; main()"]


def documented(sign: str) -> str:
    """The one shell block of docs/operations.md that holds a sign."""
    text = OPERATIONS.read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (block,) = [body for body in blocks if sign in body]
    return str(block)


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether a condition came true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


@dataclass
class Site:
    """Servers and working folder of one place.

    Attributes:
        folder: Everything of the site but PostgreSQL's cluster.
    """

    folder: Path
    database: Postgres = field(default_factory=Postgres)
    mlflow: Server | None = None
    prefect: Server | None = None
    serving: subprocess.Popen[bytes] | None = None

    def start_database(self) -> None:
        self.folder.mkdir(parents=True)
        self.database.start()

    def make_databases(self) -> None:
        for name in ("mlflow", "prefect"):
            self.database.new_database(name)

    def start_servers(self) -> None:
        place = f"127.0.0.1:{self.database.port}"
        self.mlflow = mlflow_server(self.folder, backend=f"postgresql://segmed@{place}/mlflow")
        self.prefect = prefect_server(self.folder / "prefect")
        self.prefect.env["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = (
            f"postgresql+asyncpg://segmed@{place}/prefect"
        )
        for server in (self.mlflow, self.prefect):
            server.start()

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of the operator's shell."""
        assert self.mlflow is not None
        assert self.prefect is not None
        return self.shell_environment | {
            "MLFLOW_TRACKING_URI": uri_of(self.mlflow),
            "PREFECT_API_URL": self.prefect.health.removesuffix("/health"),
            "PREFECT_HOME": str(self.folder / "prefect-home"),
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "SEGMED_CACHE": str(self.folder / "cache"),
        }

    @property
    def shell_environment(self) -> dict[str, str]:
        return os.environ | {
            "PYTHONPATH": str(REPOSITORY),
            "PATH": os.pathsep.join(
                [str(Path(sys.executable).parent), str(programs()), os.environ["PATH"]]
            ),
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.database.port),
            "PGUSER": "segmed",
        }

    def shell(self, script: str) -> None:
        """Run documented commands; any that fails fails the test."""
        done = subprocess.run(
            ["sh", "-e", "-c", script],
            cwd=self.folder,
            env=self.shell_environment,
            capture_output=True,
            text=True,
            check=False,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stderr

    def segmed(self, *words: str | Path, status: int = 0) -> str:
        """Run a command; gives what it printed."""
        done = subprocess.run(
            [*SEGMED, *map(str, words)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            encoding="utf-8",
        )
        assert done.returncode == status, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        assert "Traceback" not in done.stderr
        return done.stdout

    def json(self, *words: str | Path, status: int = 0) -> Any:
        return json.loads(self.segmed(*words, "--json", status=status))

    def install_heartbeat(self) -> None:
        words = ["automation", "create", "--from-file", str(REPOSITORY / "docker/heartbeat.yaml")]
        command = [sys.executable, "-m", "prefect", *words]
        subprocess.run(command, env=self.environment, check=True, stdout=subprocess.DEVNULL)

    def serve(self, *words: str | Path) -> None:
        """Start `segmed serve`."""
        with (self.folder / "serve.log").open("ab") as log:
            self.serving = subprocess.Popen(
                [*SEGMED, "serve", *map(str, words)],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill_everything(self) -> None:
        """SIGKILL for every process of the site, PostgreSQL at once."""
        if self.serving is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                served = psutil.Process(self.serving.pid)
                for process in (*served.children(recursive=True), served):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
            self.serving.wait()
            self.serving = None
        for server in (self.mlflow, self.prefect):
            if server is not None:
                server.stop()
        self.database.stop()
        self.database.folder = None

    def log(self) -> str:
        """The end of what `segmed serve` said."""
        path = self.folder / "serve.log"
        return path.read_text(encoding="utf-8")[-3000:] if path.exists() else ""
