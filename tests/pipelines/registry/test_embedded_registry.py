"""The embedded registry read without MLflow: as MLflow gives it, or left to MLflow."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.registry.embedded import registered_versions
from pipelines.registry.reference import LOCK_PREFIX
from pipelines.registry.versions import Registry
from pipelines.tracking.address import tracking_uri
from pipelines.tracking.database import sqlite_uri


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an odd name whose database has two models and three versions."""
    folder = tmp_path_factory.mktemp("odd #name % 50")
    client = MlflowClient(sqlite_uri(folder / "mlflow.db"), sqlite_uri(folder / "mlflow.db"))
    for name in ("hippo", "atrium", f"{LOCK_PREFIX}hippo"):
        client.create_registered_model(name)
    for number in (1, 2):
        tags = {"segmed.package_hash": f"{number:064d}", "segmed.held_out_dice": f"0.{number}"}
        client.create_model_version(
            "hippo", "runs:/x/model", tags=tags, description=f"card {number}"
        )
    client.create_model_version("atrium", "runs:/x/model", tags={"segmed.package_hash": "a" * 64})
    client.set_registered_model_alias("hippo", "champion", "1")
    client.set_registered_model_alias("hippo", "challenger", "2")
    return folder


def test_versions_are_those_that_mlflow_gives(folder: Path) -> None:
    found = registered_versions(tracking_uri(folder))
    registry = Registry(folder)
    assert found == {name: registry.versions(name) for name in registry.names()}
    assert list(found) == ["atrium", "hippo"]
    assert [version.aliases for version in found["hippo"]] == [("challenger",), ("champion",)]
    assert found["hippo"][1].description == "card 1"


def test_deleted_version_is_gone(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    uri = sqlite_uri(tmp_path / "copy" / "mlflow.db")
    MlflowClient(uri, uri).delete_model_version("hippo", "2")
    found = registered_versions(uri)
    assert found is not None
    assert [version.version for version in found["hippo"]] == ["1"]


def test_missing_file_has_no_models_and_is_not_made(tmp_path: Path) -> None:
    assert registered_versions(tracking_uri(tmp_path)) == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["server", "no database", "folder", "other tables", "spaces"])
def test_what_is_not_known_is_left_to_mlflow(kind: str, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    if kind == "server":
        assert registered_versions("http://127.0.0.1:5000") is None
        return
    if kind == "no database":
        path.write_bytes(b"not a database, but long enough to be looked at by SQLite" * 30)
    elif kind == "folder":
        path.mkdir()
    else:
        shutil.copyfile(folder / "mlflow.db", path)
        change = "ALTER TABLE model_versions RENAME COLUMN description TO words"
        if kind == "spaces":
            change = "INSERT INTO workspaces (name) VALUES ('another')"
        with sqlite3.connect(path) as database:
            database.execute(change)
        database.close()
    assert registered_versions(sqlite_uri(path)) is None
