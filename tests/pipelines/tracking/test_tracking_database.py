"""The embedded tracking file in any folder, opened by several, or not what it should be."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.tracking.address import tracking_uri, without_password
from pipelines.tracking.database import sqlite_path, sqlite_uri
from pipelines.tracking.delivery import connect, experiment_id
from segmed.errors import UsageError

NAMES = ("a b", "x#1", "50%20", "w?y", "t:1", "\u00e4\u7530", "q'\"s", "a&b=c;d@e", "p%s%3Fy#?z")


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking file of this MLflow."""
    path = tmp_path_factory.mktemp("made") / "mlflow.db"
    connect(sqlite_uri(path))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_runs_and_artifacts_lie_in_the_folder_whatever_its_name(
    name: str, tmp_path: Path, made: Path
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(made, folder / "mlflow.db")
    uri = tracking_uri(folder)
    assert sqlite_path(uri) == folder / "mlflow.db"
    assert without_password(uri) == uri
    client = connect(uri)
    run = client.create_run(experiment_id(client, uri, "set", folder))
    (tmp_path / "note.txt").write_text("found", encoding="utf-8")
    client.log_artifact(run.info.run_id, str(tmp_path / "note.txt"))
    (kept,) = folder.rglob("note.txt")
    assert kept.is_relative_to(folder / "mlartifacts" / "set")
    again = Path(client.download_artifacts(run.info.run_id, "note.txt", str(tmp_path)))
    assert again.read_text(encoding="utf-8") == "found"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "note.txt"])
    assert sqlite3.connect(folder / "mlflow.db").execute("SELECT count(*) FROM runs").fetchone()[0]


@pytest.mark.parametrize("name", ["../out", "/abs", "a/b", "100 %", ".."])
def test_artifacts_of_any_experiment_stay_in_the_folder(
    name: str, tmp_path: Path, made: Path
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copy(made, folder / "mlflow.db")
    client = connect(tracking_uri(folder))
    experiment = experiment_id(client, tracking_uri(folder), name, folder)
    (tmp_path / "note.txt").touch()
    run = client.create_run(experiment)
    client.log_artifact(run.info.run_id, str(tmp_path / "note.txt"))
    (kept,) = folder.rglob("note.txt")
    assert kept.resolve().is_relative_to((folder / "mlartifacts").resolve())


AT_ONCE = """
import sys, time
from pathlib import Path
from pipelines.tracking.address import tracking_uri
from pipelines.tracking.delivery import connect, experiment_id
folder = Path(sys.argv[1])
(folder / f"ready{sys.argv[2]}").touch()
while len(list(folder.glob("ready*"))) < 3:
    time.sleep(0.01)
uri = tracking_uri(folder)
client = connect(uri)
number = experiment_id(client, uri, "set", folder)
print(number, client.create_run(number).info.run_id)
"""


def test_processes_that_begin_at_once_share_a_fresh_file(tmp_path: Path) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", AT_ONCE, str(tmp_path), str(number)],
            cwd=Path(__file__).resolve().parents[3],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        for number in range(3)
    ]
    texts = [child.communicate(timeout=540)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0, 0], texts
    answers = [text.split()[-2:] for text in texts]
    assert len({experiment for experiment, _ in answers}) == 1
    assert len({run for _, run in answers}) == 3


def test_a_deleted_experiment_is_named_with_the_repair(tmp_path: Path, made: Path) -> None:
    shutil.copy(made, tmp_path / "mlflow.db")
    uri = tracking_uri(tmp_path)
    client = connect(uri)
    number = experiment_id(client, uri, "set", tmp_path)
    client.delete_experiment(number)
    with pytest.raises(UsageError, match=f"'set' was deleted .* restore --experiment-id {number}"):
        experiment_id(client, uri, "set", tmp_path)
    client.restore_experiment(number)
    assert experiment_id(client, uri, "set", tmp_path) == number


def with_version(path: Path, version: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE alembic_version SET version_num = '{version}'")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: with_version(path, "0584bdc529eb"), "another version .* `mlflow db upgrade"),
        (lambda path: with_version(path, "ffffffffffff"), "another version .* install that one"),
        (lambda path: path.write_bytes(b"<html>" * 400), "is damaged .* from a backup, or move it"),
        (cut, "is damaged .* from a backup, or move it"),
        (folder_instead, "cannot be opened .* work in another folder"),
    ],
    ids=["older", "newer", "text", "cut", "folder"],
)
def test_a_file_that_cannot_be_used_is_named_with_the_repair(
    change: Callable[[Path], None], words: str, tmp_path: Path, made: Path
) -> None:
    path = tmp_path / "mlflow.db"
    shutil.copy(made, path)
    change(path)
    with pytest.raises(UsageError, match=words):
        connect(tracking_uri(tmp_path))
