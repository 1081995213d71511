"""Schedules against a real Prefect server: a run that nobody starts by hand does happen."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
import requests
import yaml
from listener import WebHook, listening
from prefect_client import Api, wait_for
from servers import Server
from slow_line import STUDIES
from slow_pacs import images_for_pacs, slow_pacs
from tiny_data import hippocampus_package

from segmed.archive import Ledger

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).resolve().parent.parent.parent
EVERY_MINUTE = "* * * * *"
NEVER = "0 0 29 2 *"


@pytest.fixture
def api(prefect: Server) -> Iterator[Api]:
    """The server, without what an earlier test left on it."""
    found = Api(prefect.health.removesuffix("/health"))
    yield found
    for deployment in found.post("/deployments/filter"):
        requests.delete(f"{found.url}/deployments/{deployment['id']}", timeout=30)


@pytest.fixture
def archive(tmp_path: Path, shared_data: Callable[[str], Path]) -> Path:
    """A folder with an archive of one real image and one broken file, and a package."""
    hippocampus_package().save(tmp_path / "package")
    (tmp_path / "scans").mkdir()
    image = min((shared_data("hippocampus") / "imagesTr").glob("*.nii.gz"))
    (tmp_path / "scans/sound.nii.gz").write_bytes(image.read_bytes())
    (tmp_path / "scans/broken.nii.gz").write_bytes(image.read_bytes()[:2000])
    return tmp_path


@pytest.fixture
def pacs(
    shared_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    images = images_for_pacs(shared_data("hippocampus"))
    with slow_pacs(images, tmp_path_factory.mktemp("pacs")) as address:
        yield address


def environment(api: Api, folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PREFECT_API_URL": api.url,
        "PREFECT_HOME": str(folder / "prefect-home"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
    }


def serve_command(source: str, folder: Path, *words: str) -> list[str]:
    code = "from pipelines.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "--archive", source]
    return [*command, "--model", str(folder / "package"), "-o", str(folder / "out"), *words]


@contextmanager
def running(command: list[str], folder: Path, env: dict[str, str], log: str) -> Iterator[Path]:
    """A process, killed with all that it started at the end; gives its log."""
    path = folder / log
    with path.open("ab") as stream:
        process = subprocess.Popen(
            command, env=env, cwd=folder, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        yield path
    finally:
        with suppress(psutil.NoSuchProcess):
            whole = psutil.Process(process.pid)
            for each in [whole, *whole.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    each.send_signal(signal.SIGKILL)
        process.wait()


def run_quietly(command: list[str], folder: Path, env: dict[str, str]) -> str:
    done = subprocess.run(
        command, env=env, cwd=folder, capture_output=True, text=True, check=False, encoding="utf-8"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def worker(pool: str) -> list[str]:
    return [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool]


def statuses(out: Path) -> list[str]:
    path = out / "outcomes.json"
    return (
        sorted(o["status"] for o in json.loads(path.read_text(encoding="utf-8")))
        if path.exists()
        else []
    )


def test_scheduler_of_the_server_makes_runs_for_a_cron_deployment(api: Api, archive: Path) -> None:
    command = serve_command(str(archive / "scans"), archive, "--work-pool", "cron-only")
    told = run_quietly(command, archive, environment(api, archive))
    assert "nightly/nightly" in told
    runs = wait_for(lambda: api.runs("nightly"), 120)  # no worker: only the server makes them
    assert runs
    assert all(run["auto_scheduled"] and run["state_name"] == "Scheduled" for run in runs)
    assert {"auto-scheduled", "segmed"} <= set(runs[0]["tags"])
    assert runs[0]["next_scheduled_start_time"].endswith(("02:00:00Z", "02:00:00+00:00"))


def test_served_schedule_really_segments_the_archive(api: Api, archive: Path) -> None:
    env = environment(api, archive)
    command = serve_command(str(archive / "scans"), archive, "--nightly-cron", EVERY_MINUTE)
    with running(command, archive, env, "serve.log") as log:
        found = wait_for(lambda: statuses(archive / "out"), 300)
    assert found == ["done", "refused"], log.read_text(encoding="utf-8")[-3000:]


def test_worker_runs_the_schedule_and_the_page_describes_it(api: Api, archive: Path) -> None:
    env = environment(api, archive)
    with listening(WebHook()) as hook:
        words = ["--work-pool", "segmed", "--nightly-cron", EVERY_MINUTE, "--notify", hook.url]
        run_quietly(serve_command(str(archive / "scans"), archive, *words), archive, env)
        with running(worker("segmed"), archive, env, "worker.log") as log:
            wait_for(lambda: hook.got, 300)
            ended = wait_for(
                lambda: [r for r in api.runs("nightly") if r["state_name"] == "Completed"], 60
            )
    assert statuses(archive / "out") == ["done", "refused"], log.read_text(encoding="utf-8")[-3000:]
    assert ended, log.read_text(encoding="utf-8")[-3000:]
    assert ended[0]["name"].startswith("nightly package ")
    assert hook.got[0]["subject"] == "segmed: 1 done, 1 refused"
    assert "study" in hook.got[0]["body"]
    assert "broken" not in hook.got[0]["body"], "a file name left the house"
    artifacts = api.artifacts()
    assert artifacts["archive-progress"]["data"] == 100.0
    assert "1 done, 1 refused" in artifacts["archive-summary"]["data"]
    assert "archive-refused-and-failed" in artifacts


def test_deployments_of_the_file_are_accepted_and_run_on_demand(api: Api, archive: Path) -> None:
    env = environment(api, archive)
    content = yaml.safe_load((REPOSITORY / "pipelines/prefect.yaml").read_text(encoding="utf-8"))
    for entry in content["deployments"]:
        if entry["name"] in {"nightly", "on-demand"}:
            entry["parameters"]["job"] = {
                "source": str(archive / "scans"),
                "models": [str(archive / "package")],
                "out_dir": str(archive / "out"),
                "folder": str(archive),
            }
    (archive / "prefect.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    prefect = [sys.executable, "-m", "prefect"]
    run_quietly(
        [*prefect, "work-pool", "create", "segmed", "--overwrite", "--type", "process"],
        archive,
        env,
    )
    deploy = ["--no-prompt", "deploy", "--all", "--prefect-file", "prefect.yaml"]
    run_quietly([*prefect, *deploy], archive, env)
    names = {automation["name"] for automation in api.post("/automations/filter")}
    assert "segmed nightly continues a crashed run" in names
    ask = ["deployment", "run", "on-demand/on-demand", "-p", "limit=1"]
    run_quietly([*prefect, *ask], archive, env)
    with running(worker("segmed"), archive, env, "worker.log") as log:
        wait_for(lambda: statuses(archive / "out"), 200)
    assert len(statuses(archive / "out")) == 1, log.read_text(encoding="utf-8")[-3000:]


def continued(api: Api, cut: str) -> list[str]:
    """The completed runs of the same deployment; nothing is due for it before tomorrow."""
    first = api.get(f"/flow_runs/{cut}")
    return [
        run["id"]
        for run in api.runs("nightly")
        if run["deployment_id"] == first["deployment_id"] and run["state_name"] == "Completed"
    ]


def at_a_minute_from_now(minutes: int) -> str:
    """A cron expression that fires once a day, so only once in a test."""
    due = datetime.now(UTC) + timedelta(minutes=minutes)
    return f"{due.minute} {due.hour} * * *"


@pytest.mark.timeout(1200)
def test_killed_worker_frees_the_gpu_slot_and_its_run_is_continued(
    api: Api, pacs: str, tmp_path: Path
) -> None:
    hippocampus_package().save(tmp_path / "package")
    out, env = tmp_path / "out", environment(api, tmp_path)
    env["SEGMED_DICOMWEB_PASSWORD"] = "tried"
    slot = f"/v2/concurrency_limits/segmed-gpu-{socket.gethostname()}"
    # Prefect holds the events of a run back for 15 minutes that was made under 5 before its time.
    words = ["--work-pool", "killed", "--nightly-cron", at_a_minute_from_now(7)]
    run_quietly(serve_command(pacs, tmp_path, *words), tmp_path, env)

    def outputs() -> int:
        return len(list((out / "segmentations").glob("[!.]*")))

    with running(worker("killed"), tmp_path, env, "first.log") as log:
        assert wait_for(lambda: outputs() >= 3, 620), log.read_text(encoding="utf-8")[-3000:]
        assert api.get(slot)["active_slots"] == 1
    # Leaving the block killed worker and run with SIGKILL.
    # Runs that an earlier test cut off may be Running here as well: look at this deployment only.
    [deployment] = [d for d in api.post("/deployments/filter") if d["name"] == "nightly"]
    own = [run for run in api.runs("nightly") if run["deployment_id"] == deployment["id"]]
    [cut] = [run for run in own if run["state_name"] == "Running"]
    before = outputs()
    with running(worker("killed"), tmp_path, env, "second.log") as log:
        crashed = wait_for(
            lambda: api.get(f"/flow_runs/{cut['id']}")["state_name"] == "Crashed", 180
        )
        assert crashed, "the dead run was not found"
        ended = wait_for(lambda: continued(api, cut["id"]), 200)
    assert ended, log.read_text(encoding="utf-8")[-3000:]
    assert before < len(statuses(out)) == STUDIES
    assert set(statuses(out)) == {"done"}
    with Ledger(out / "ledger.sqlite", writer=False) as ledger:
        attempts = [entry.attempts for entry in ledger.entries()]
    assert sum(attempts) - STUDIES <= 9, "more was repeated than was in hand"
    assert api.get(slot)["active_slots"] == 0
