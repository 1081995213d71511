"""Archive runs over a real Dask cluster, and what they leave behind."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

from dask_cluster import DaskCluster
from orthanc_server import PASSWORD
from servers import Server, prefect_server
from tiny_data import hippocampus_package

from segmed.archive import Ledger

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def environment(server: Server, home: Path) -> dict[str, str]:
    """Environment of a driver and of its workers."""
    return {
        **os.environ,
        "PREFECT_API_URL": server.health.removesuffix("/health"),
        "PREFECT_HOME": str(home),
        "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}",
        "PYTHONPATH": str(REPOSITORY),
        "SEGMED_DICOMWEB_PASSWORD": PASSWORD,
        "OMP_NUM_THREADS": "1",
    }


def segment(
    source: str, package: Path, out: Path, env: dict[str, str], *words: str
) -> subprocess.Popen[str]:
    """Begin `segmed archive segment`."""
    code = "from pipelines.cli import main; main()"
    command = [sys.executable, "-c", code, "archive", "segment", source, "--json"]
    command += ["--model", str(package), "-o", str(out), *words]
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            command, env=env, cwd=out.parent, stdout=log, stderr=log, text=True, encoding="utf-8"
        )


def done(process: subprocess.Popen[str], out: Path) -> None:
    """Wait for the good end of a command."""
    assert process.wait(400) == 0, out.with_suffix(".log").read_text(encoding="utf-8")[-3000:]


def ends(out: Path) -> dict[str, tuple[str, str | None, int]]:
    """State, output digest and number of attempts of every study."""
    with Ledger(out / "ledger.sqlite", writer=False) as ledger:
        return {e.key: (e.state, e.output_sha256, e.attempts) for e in ledger.entries()}


def files(out: Path) -> dict[str, bytes]:
    """The segmentations."""
    return {path.name: path.read_bytes() for path in (out / "segmentations").glob("[!.]*")}


def run_seconds(out: Path) -> float:
    """Time of the last run, from its first study to its last, in s."""
    with sqlite3.connect(out / "ledger.sqlite") as connection:
        started, ended = connection.execute(
            "SELECT started, ended FROM runs ORDER BY run DESC LIMIT 1"
        ).fetchone()
    return float(ended - started)


class DaskSite:
    """A folder with a model, and a Prefect server, for runs outside pytest.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "home").mkdir()
        self._server = prefect_server(folder / "prefect")
        self._env = environment(self._server, folder / "home")
        self._package = hippocampus_package().save(folder / "package")

    def __enter__(self) -> DaskSite:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def run_with(self, workers: int, source: str, few: list[Path]) -> Path:
        """Output folder of a run over Dask workers, which have loaded the model before."""
        cluster = DaskCluster(self.folder / f"dask{workers}", self._env)
        out = self.folder / f"out{workers}"
        try:
            cluster.start(workers)
            words = ("--cluster", cluster.address)
            self._run(self._few(few), out, *words)
            self._run(source, out, *words)
        finally:
            cluster.stop()
        return out

    def run_alone(self, source: str, few: list[Path]) -> Path:
        """Output folder of a run in one process."""
        out = self.folder / "alone"
        self._run(self._few(few), out)
        self._run(source, out)
        return out

    def _run(self, source: str, out: Path, *words: str) -> None:
        done(segment(source, self._package, out, self._env, *words), out)

    def _few(self, images: list[Path]) -> str:
        folder = self.folder / "few"
        folder.mkdir(exist_ok=True)
        for path in images:
            shutil.copy(path, folder)
        return str(folder)
