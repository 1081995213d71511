"""Real servers: MLflow for all tests, Prefect for each module, Orthanc for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from orthanc_server import Orthanc
from postgres import Postgres
from servers import Server, mlflow_server, prefect_server, uri_of


@pytest.fixture(scope="session")
def sqlite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = mlflow_server(tmp_path_factory.mktemp("server"))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    database = Postgres()
    database.start()
    backend = database.new_database("mlflow")
    running = mlflow_server(tmp_path_factory.mktemp("server"), backend=backend)
    running.start()
    yield running
    running.stop()
    database.stop()


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Server:
    """MLflow over the database that the test names, SQLite unless it names one."""
    database = getattr(request, "param", "sqlite")
    running: Server = request.getfixturevalue(f"{database}_server")
    if not running.answers():  # a test that failed may have left it dead
        running.start()
    return running


@pytest.fixture
def place(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose tracking goes to the server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri_of(server))
    monkeypatch.setenv("SEGMED_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prefect server without deployments or runs of other modules."""
    running = prefect_server(tmp_path_factory.mktemp("prefect"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """An empty PACS."""
    running = Orthanc(tmp_path / "orthanc")
    running.start()
    yield running
    running.stop()
