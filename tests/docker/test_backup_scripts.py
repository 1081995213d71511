"""`backup.sh` and `restore.sh` on a real PostgreSQL; a stand-in for `docker` runs their commands.

The stand-in replaces the container engine only: what would run in the container `db` runs against a
PostgreSQL that the test starts, `/data` of a service is a folder.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

DOCKER = Path(__file__).resolve().parents[2] / "docker"
BIN = Path("/usr/lib/postgresql/15/bin")

STAND_IN = r"""#!/bin/sh
# docker compose [-f FILE] [--profile P] up|exec|run [OPTION...] SERVICE COMMAND...
shift
while :; do case "$1" in -f|--profile) shift 2;; *) break;; esac; done
verb=$1; shift
if [ "$verb" = up ]; then exit 0; fi
while :; do case "$1" in -*) shift;; *) break;; esac; done
service=$1; shift
data="$STAND_IN_DATA/$service"
case "$1" in
    python3) sed "s|/data|$data|" | "$STAND_IN_PYTHON" -;;
    tar) shift 3; exec tar -C "$data" "$@";;
    *) exec "$@";;
esac
"""


@dataclass(frozen=True)
class Site:
    """A machine: its PostgreSQL and its volumes."""

    environment: dict[str, str]
    data: Path

    def sql(self, database: str, text: str) -> str:
        done = subprocess.run(
            ["psql", "-U", "segmed", "-d", database, "-Atc", text],
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
            encoding="utf-8",
        )
        return done.stdout.strip()

    def script(self, name: str, folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(DOCKER / name), str(folder)],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            encoding="utf-8",
        )


def as_postgres(*command: str) -> None:
    """PostgreSQL's own programs refuse to run as root."""
    user = pwd.getpwnam("postgres").pw_uid if os.getuid() == 0 else None
    subprocess.run(command, user=user, cwd="/", check=True, stdout=subprocess.DEVNULL)


def start_site(folder: Path) -> Site:
    """A fresh PostgreSQL with the two databases of the compose file, and empty volumes."""
    cluster, stand_in = folder / "cluster", folder / "bin" / "docker"
    cluster.mkdir(parents=True)
    if os.getuid() == 0:
        shutil.chown(cluster, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    as_postgres(str(BIN / "initdb"), "-D", str(cluster), "-A", "trust", "-U", "segmed")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
    as_postgres(
        str(BIN / "pg_ctl"),
        "-w",
        "-D",
        str(cluster),
        "-l",
        str(cluster / "log"),
        "-o",
        options,
        "start",
    )
    stand_in.parent.mkdir()
    stand_in.write_text(STAND_IN, encoding="utf-8")
    stand_in.chmod(0o755)
    for service in ("mlflow", "segmed"):
        (folder / "data" / service).mkdir(parents=True)
    environment = os.environ | {
        "PATH": f"{stand_in.parent}:{os.environ['PATH']}",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(port),
        "STAND_IN_DATA": str(folder / "data"),
        "STAND_IN_PYTHON": sys.executable,
    }
    site = Site(environment, folder / "data")
    site.sql("postgres", "create database mlflow")
    site.sql("postgres", "create database mlflow_auth")
    site.sql("postgres", "create database prefect")
    site.sql("prefect", "create extension pg_trgm")
    return site


@pytest.fixture
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Site]]:
    """The site that is backed up, and a fresh one."""
    if not (BIN / "initdb").exists() or shutil.which("pg_dump") is None:
        pytest.skip("no PostgreSQL 15 on this machine")
    folder = tmp_path_factory.mktemp("sites")
    for parent in (folder, folder.parent, folder.parent.parent):
        parent.chmod(0o755)  # the user postgres has to reach its cluster
    started = []
    try:
        for name in ("old", "new"):
            started.append(folder / name / "cluster")
            site = start_site(folder / name)
            started.append(site)
        yield started[1], started[3]
    finally:
        for cluster in (item for item in started if isinstance(item, Path)):
            if (cluster / "postmaster.pid").exists():
                as_postgres(str(BIN / "pg_ctl"), "-m", "fast", "-D", str(cluster), "stop")


def test_what_is_backed_up_comes_back_on_a_fresh_site_and_only_there(
    sites: tuple[Site, Site], tmp_path: Path
) -> None:
    old, new = sites
    old.sql("mlflow", "create table registered_models (name text primary key)")
    old.sql("mlflow", "insert into registered_models values ('hippocampus')")
    old.sql("mlflow_auth", "create table users (username text)")
    old.sql("mlflow_auth", "insert into users values ('admin')")
    old.sql("prefect", "create table flow_run (name text, state_type text)")
    old.sql("prefect", "insert into flow_run values ('ended', 'COMPLETED'), ('cut', 'RUNNING')")
    old.sql("prefect", "create table concurrency_limit_v2 (active_slots int)")
    old.sql("prefect", "insert into concurrency_limit_v2 values (1)")
    old.sql("prefect", "create index on flow_run using gin (name gin_trgm_ops)")
    (old.data / "mlflow" / "artifacts").mkdir()
    (old.data / "mlflow" / "artifacts" / "weights").write_bytes(b"weights")
    outputs = old.data / "segmed" / "segmentations"
    outputs.mkdir()
    (outputs / "a.nii.gz").write_bytes(b"label")
    ledger = sqlite3.connect(outputs / "ledger.sqlite")
    ledger.execute("pragma journal_mode = wal")
    ledger.execute("create table studies (key text)")
    ledger.execute("insert into studies values ('k')")
    ledger.commit()  # still in the write-ahead log, and the connection stays open

    done = old.script("backup.sh", tmp_path / "backup")
    assert done.returncode == 0, done.stderr
    ledger.close()
    done = new.script("restore.sh", tmp_path / "backup")
    assert done.returncode == 0, done.stderr

    assert new.sql("mlflow", "select name from registered_models") == "hippocampus"
    assert new.sql("mlflow_auth", "select username from users") == "admin"
    assert new.sql("prefect", "select name from flow_run") == "ended"
    assert new.sql("prefect", "select active_slots from concurrency_limit_v2") == "0"
    assert (new.data / "mlflow" / "artifacts" / "weights").read_bytes() == b"weights"
    assert (new.data / "segmed" / "segmentations" / "a.nii.gz").read_bytes() == b"label"
    with sqlite3.connect(new.data / "segmed" / "segmentations" / "ledger.sqlite") as copy:
        assert copy.execute("select key from studies").fetchall() == [("k",)]
    copy.close()

    again = new.script("restore.sh", tmp_path / "backup")
    assert again.returncode == 1
    assert "restore into fresh volumes" in again.stderr
