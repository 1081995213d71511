"""`segmed doctor` on a real Prefect server with a login: schedules, heartbeat, refused access."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Server, prefect_server

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).resolve().parents[2]
LOGIN = "segmed:long-test-password-1"
DEPLOY = """
import sys
from pipelines.flows.nightly import nightly
nightly.to_deployment(name="nightly", cron="0 2 * * *", paused=sys.argv[1] == "paused").apply()
"""
FORGET = """
import datetime as dt
from pathlib import Path
from pipelines.flows.schedules import Schedules, deployments
from pipelines.flows.stale_runs import forget_stale_runs, settings_of
from pipelines.runs.archiving import ArchiveJob
from prefect.client.orchestration import get_client
job = ArchiveJob(source="new", models=("m",), out_dir=Path("o"))
found = deployments(Schedules(archive=job, days=2))
for entry in found:
    entry.apply()
(nightly,) = (entry for entry in found if entry.name == "nightly")
old = nightly.parameters | {"job": nightly.parameters["job"] | {"source": "old"}}
with get_client(sync_client=True) as client:

    def planned_by_schedule(parameters):
        # runs of days gone by, as a server has them that was restored from a backup
        nightly.parameters = parameters
        nightly.apply()
        days = [(dt.datetime.now(dt.UTC) - dt.timedelta(days=ago)).isoformat() for ago in (3, 1)]
        path, span = f"/deployments/{deployment.id}/schedule", {"start_time": days[0]}
        client._client.post(path, json=span | {"end_time": days[1]}).raise_for_status()

    deployment = client.read_deployment_by_name("nightly/nightly")
    new = nightly.parameters
    planned_by_schedule(old)
    nightly.parameters = new
    nightly.apply()
    on_demand = client.read_deployment_by_name("on-demand/on-demand")
    asked = [
        client.create_flow_run_from_deployment(each.id, parameters=old).id
        for each in (deployment, on_demand)
    ]
    settings = settings_of(found) | {"nightly/unknown": {}}
    print(forget_stale_runs(settings), forget_stale_runs(settings))
    kept = [client.read_flow_run(each) for each in asked]
    print(all(run.parameters == old and run.state.is_scheduled() for run in kept))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = prefect_server(tmp_path_factory.mktemp("prefect"))
    running.env["PREFECT_SERVER_API_AUTH_STRING"] = LOGIN
    running.start()
    yield running
    running.stop()


def python(server: Server, folder: Path, *words: str, login: str = LOGIN) -> str:
    environment = {
        **os.environ,
        "PREFECT_API_URL": server.health.removesuffix("/health"),
        "PREFECT_API_AUTH_STRING": login,
        "PREFECT_HOME": str(folder / "home"),
        "PYTHONPATH": str(REPOSITORY),
    }
    done = subprocess.run(
        [sys.executable, *words],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode in {0, 1}, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def findings(server: Server, folder: Path, login: str = LOGIN) -> dict[str, dict[str, str]]:
    main = "from pipelines.cli import main; main()"
    told = json.loads(python(server, folder, "-c", main, "doctor", "--json", login=login))
    return {entry["what"]: entry for entry in told["findings"]}


def test_wrong_login_is_a_problem_with_its_repair(server: Server, tmp_path: Path) -> None:
    told = findings(server, tmp_path, login="segmed:wrong")["prefect"]
    assert told["state"] == "problem"
    assert "status 401" in told["fact"]
    assert told["repair"].startswith("set PREFECT_API_AUTH_STRING")


def test_schedules_are_looked_at_one_by_one(server: Server, tmp_path: Path) -> None:
    told = findings(server, tmp_path)
    assert told["prefect"]["state"] == "ok"
    assert told["schedules"]["repair"] == "start `segmed serve` and keep it running"
    assert told["heartbeat"]["state"] == "warning"

    heartbeat = str(REPOSITORY / "docker" / "heartbeat.yaml")
    python(server, tmp_path, "-m", "prefect", "automation", "create", "--from-file", heartbeat)
    python(server, tmp_path, "-c", DEPLOY, "paused")
    told = findings(server, tmp_path)
    assert told["heartbeat"]["state"] == "ok"
    assert told["schedule nightly"]["fact"] == "paused"

    python(server, tmp_path, "-c", DEPLOY, "kept")
    told = findings(server, tmp_path)
    assert "no process serves it" in told["schedule nightly"]["fact"]
    assert told["schedule nightly"]["fact"].startswith("next ")


def test_only_runs_of_a_schedule_are_forgotten_for_other_settings(
    server: Server, tmp_path: Path
) -> None:
    first, second, kept = python(server, tmp_path, "-c", FORGET).split()
    assert int(first) == 2
    assert int(second) == 0
    assert kept == "True", "a run that a user requested was deleted or changed"
