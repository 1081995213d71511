"""`segmed doctor`: each thing that is not well is named with its repair, and only such things."""

from __future__ import annotations

import datetime as dt
import json
import os
import pwd
import shutil
import sqlite3
from contextlib import closing
from email.utils import format_datetime
from multiprocessing.queues import SimpleQueue as Queue
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fresh_processes import FRESH, fresh_process
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.doctor import Finding
from pipelines.doctor.files import MIN_FREE_BYTES, look_at_place, room
from pipelines.doctor.machine import RELEASED, clock
from pipelines.doctor.tracker import clear_text, clocks
from pipelines.doctor.versions import look_at_versions
from segmed.archive import Ledger

NOW = dt.datetime.now(dt.UTC)


def doctor(*words: str | Path) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit status, and the last finding that was not well of each thing."""
    result = CliRunner().invoke(app, ["doctor", "--json", *map(str, words)])
    content = json.loads(result.stdout)
    unwell = {f["what"]: f for f in content["findings"] if f["state"] != "ok"}
    assert all(entry["repair"] for entry in unwell.values())
    return result.exit_code, unwell


@pytest.fixture(autouse=True)
def _quiet_place(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


def test_healthy_machine_has_no_problem(working_folder: Path) -> None:
    status, unwell = doctor()
    assert status == 0
    assert not [entry for entry in unwell.values() if entry["state"] == "problem"]


def test_plain_lines_end_with_the_verdict() -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.stdout.splitlines()[-1] == "no problems found"
    assert result.stdout.startswith("segmed: ")


def test_ledger_of_a_later_version_is_a_problem(working_folder: Path) -> None:
    (working_folder / "out").mkdir()
    with closing(sqlite3.connect(working_folder / "out" / "ledger.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 9")
    status, unwell = doctor("-o", "out")
    assert status == 1
    assert "schema version 9" in unwell["ledger"]["fact"]


def test_ledger_that_everybody_may_read_is_a_warning(working_folder: Path) -> None:
    path = working_folder / "out" / "ledger.sqlite"
    Ledger(path).close()
    path.chmod(0o644)
    status, unwell = doctor("-o", "out")
    assert status == 0
    assert unwell["ledger"]["repair"] == "chmod o= out/ledger.sqlite"
    path.chmod(0o640)
    assert "ledger" not in doctor("-o", "out")[1]


def test_archive_that_is_away_or_empty_is_told(working_folder: Path) -> None:
    status, unwell = doctor("--archive", "nowhere")
    assert (status, unwell["archive"]["state"]) == (1, "problem")
    (working_folder / "empty").mkdir()
    status, unwell = doctor("--archive", "empty")
    assert (status, unwell["archive"]["repair"]) == (0, "is it mounted?")


def test_model_that_is_not_registered_is_a_problem() -> None:
    status, unwell = doctor("--model", "models:/nobody@champion")
    assert status == 1
    assert "nobody" in unwell["model"]["fact"]


def test_servers_that_do_not_answer_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    status, unwell = doctor()
    assert status == 1
    assert "does not answer" in unwell["tracking"]["fact"]
    assert "does not answer" in unwell["prefect"]["fact"]


def test_secret_file_that_everybody_may_read_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x", encoding="utf-8")
    secret.chmod(0o644)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD_FILE", str(secret))
    assert doctor()[1]["secret"]["repair"] == f"chmod o= {secret}"


def as_nobody(answer: Queue[Finding]) -> None:
    """In a child process: look at a folder that only root may write."""
    if os.getuid() == 0:  # who may write everywhere
        os.setuid(pwd.getpwnam("nobody").pw_uid)
    for finding in look_at_place("output folder", Path("/not/there/yet")):
        answer.put(finding)


def test_folder_of_another_user_is_a_problem() -> None:
    answer: Queue[Finding] = FRESH.SimpleQueue()
    child = fresh_process(as_nobody, answer)
    child.start()
    child.join()
    finding = answer.get()
    assert finding.state == "problem"
    assert finding.fact.startswith("/ cannot be written by user")
    assert finding.repair.endswith("or choose another folder")


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(
    ("free", "state"), [(MIN_FREE_BYTES - 1, "problem"), (2 * 10**9, "warning"), (10**11, "ok")]
)
def test_disk_is_judged_by_what_is_free(
    free: int, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12 - free, free))
    assert room("output folder", tmp_path).state == state


@pytest.mark.parametrize(
    ("package", "version", "why"),
    [
        ("fastapi", "0.151.0", "answer 422"),
        ("SQLAlchemy", "2.1.0", "never creates a run"),
        ("mlflow", "3.18.0", "that version's form"),
    ],
)
def test_version_that_breaks_a_server_is_a_problem(
    package: str, version: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / f"{package}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (problem,) = [finding for finding in look_at_versions() if finding.state == "problem"]
    assert version in problem.fact
    assert why in problem.fact
    assert problem.repair.startswith(f"pip install '{package}>=")


def test_telemetry_that_was_switched_on_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    assert doctor()[1]["telemetry"]["repair"] == "set DO_NOT_TRACK=1"


@pytest.mark.parametrize(("seconds", "state"), [(5, "ok"), (3600, "problem"), (-3600, "problem")])
def test_clock_is_compared_with_the_servers(seconds: int, state: str) -> None:
    now = dt.datetime.now(dt.UTC)
    stated = format_datetime(now - dt.timedelta(seconds=seconds), usegmt=True)
    (finding,) = clocks("the server", stated)
    assert finding.state == state
    if state == "problem":
        assert f" s {'before' if seconds > 0 else 'behind'} the server" in finding.fact


def test_clock_before_the_release_is_a_problem() -> None:
    assert clock(RELEASED - dt.timedelta(days=1)).state == "problem"
    assert clock(NOW).state == "ok"


@pytest.mark.parametrize(
    ("uri", "warns"),
    [
        ("http://mlflow.example.org:5000", True),
        ("https://mlflow.example.org", False),
        ("http://127.0.0.1:5000", False),
        ("http://mlflow:5000", False),  # a name of the compose network
    ],
)
def test_password_without_tls_over_a_network_is_told(
    uri: str, warns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "x")
    found: list[Any] = list(clear_text("tracking", uri, variable="MLFLOW_TRACKING_PASSWORD"))
    assert bool(found) is warns
