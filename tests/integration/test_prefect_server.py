"""Schedules against a real Prefect server: a run that nobody starts by hand does happen."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from prefect.client.orchestration import PrefectClient
from servers import Server, prefect_server
from tiny_data import tiny_plan, write_case

from segmed.models import build_model
from segmed.package import ModelPackage

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).resolve().parent.parent.parent
EVERY_MINUTE = "* * * * *"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = prefect_server(tmp_path_factory.mktemp("prefect"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder with an archive of one image, and a package."""
    plan = tiny_plan()
    options = dict(plan.networks["unet"].options)
    torch.manual_seed(0)
    network = build_model("unet", spatial_dims=3, in_channels=1, num_classes=3, **options)
    ModelPackage("unet", options, plan, network.state_dict()).save(tmp_path / "package")
    (tmp_path / "scans").mkdir()
    write_case(tmp_path, "case", 0)
    shutil.move(tmp_path / "case_image.nii", tmp_path / "scans")
    return tmp_path


def environment(server: Server, folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PREFECT_API_URL": server.health.removesuffix("/health"),
        "PREFECT_HOME": str(folder / "prefect-home"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "PYTHONPATH": str(REPOSITORY),
    }


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(1)
    return False


def states(server: Server) -> list[str]:
    async def read() -> list[Any]:
        async with PrefectClient(server.health.removesuffix("/health")) as client:
            return await client.read_flow_runs()

    return [str(run.state_name) for run in asyncio.run(read())]


def segmented(out: Path) -> bool:
    path = out / "outcomes.json"
    return path.exists() and [o["status"] for o in json.loads(path.read_text())] == ["done"]


def test_served_schedule_really_segments_the_archive(server: Server, archive: Path) -> None:
    code = "from pipelines.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "--archive", str(archive / "scans")]
    command += ["--model", str(archive / "package"), "-o", str(archive / "out")]
    command += ["--nightly-cron", EVERY_MINUTE]
    with (archive / "serve.log").open("wb") as log:
        serving = subprocess.Popen(
            command,
            env=environment(server, archive),
            cwd=archive,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            done = wait_for(lambda: segmented(archive / "out"), 300)
        finally:
            os.killpg(serving.pid, signal.SIGKILL)
            serving.wait()
    assert done, (archive / "serve.log").read_text()[-3000:]


def test_deployment_of_a_work_pool_fires_on_its_schedule(server: Server, archive: Path) -> None:
    env = environment(server, archive)
    content = yaml.safe_load((REPOSITORY / "pipelines/prefect.yaml").read_text())
    nightly = next(entry for entry in content["deployments"] if entry["name"] == "nightly")
    nightly["schedules"][0]["cron"] = EVERY_MINUTE
    nightly["parameters"] = {
        "source": str(archive / "scans"),
        "model": str(archive / "package"),
        "out_dir": str(archive / "out"),
        "folder": str(archive),
    }
    (archive / "prefect.yaml").write_text(yaml.safe_dump(content))
    prefect = [sys.executable, "-m", "prefect"]
    for words in (
        ["work-pool", "create", "segmed", "--type", "process"],
        ["--no-prompt", "deploy", "--name", "nightly", "--prefect-file", "prefect.yaml"],
    ):
        done = subprocess.run(
            [*prefect, *words], env=env, cwd=archive, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    with (archive / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [*prefect, "worker", "start", "--pool", "segmed"],
            env=env,
            cwd=archive,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            ran = wait_for(lambda: segmented(archive / "out"), 300)
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
    assert ran, (archive / "worker.log").read_text()[-3000:]
    assert set(states(server)) >= {"Scheduled"}
