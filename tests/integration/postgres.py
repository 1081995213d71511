"""A real PostgreSQL cluster in a folder of its own, for the servers that keep their data in one."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from servers import free_port

ACCOUNT = "postgres"
"""PostgreSQL refuses to run as root; then this account, which the package makes, runs it."""


def programs() -> Path:
    """The folder of PostgreSQL's programs; skips the test where there is none."""
    on_path = shutil.which("pg_ctl")
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if on_path is None and not packaged:
        pytest.skip("PostgreSQL is missing: apt-get install postgresql")
    return packaged[-1].parent if packaged else Path(str(on_path)).parent


@dataclass
class Postgres:
    """One cluster that listens on loopback only."""

    port: int = field(default_factory=free_port)
    folder: Path | None = None

    def start(self) -> None:
        """Make the cluster and start it, or skip the test where PostgreSQL is not installed."""
        found = programs()
        self.folder = Path(tempfile.mkdtemp(prefix="segmed-postgres-"))
        if os.geteuid() == 0:
            shutil.chown(self.folder, ACCOUNT)
        data, log = self.folder / "data", self.folder / "log"
        self._run(found / "initdb", "-D", data, "-U", "segmed", "-A", "trust", "--no-sync")
        options = f"-h 127.0.0.1 -p {self.port} -k {self.folder} -c fsync=off"
        self._run(found / "pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start")

    def new_database(self, name: str) -> str:
        """Make an empty database; gives its address for SQLAlchemy."""
        words = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "segmed", name)
        self._run(programs() / "createdb", *words)
        return f"postgresql+psycopg2://segmed@127.0.0.1:{self.port}/{name}"

    def stop(self) -> None:
        """End it and remove its files."""
        if self.folder is not None:
            words = ("-D", self.folder / "data", "-m", "immediate", "-w", "stop")
            self._run(programs() / "pg_ctl", *words)
            shutil.rmtree(self.folder)

    def _run(self, *words: str | Path) -> None:
        account = ACCOUNT if os.geteuid() == 0 else None
        assert self.folder is not None
        with (self.folder / "commands.log").open("ab") as log:
            subprocess.run(
                [str(word) for word in words],
                check=True,
                user=account,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
