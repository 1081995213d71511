"""The deployment `watch/watch` on a real Prefect server: it runs until it is cancelled."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "archive"))  # for tiny_model.py
sys.path.append(str(Path(__file__).parents[1] / "archive/watch"))  # for storm.py

import storm
from prefect_client import Api, wait_for
from servers import Server
from test_prefect_server import NEVER, environment, run_quietly, running, serve_command
from tiny_model import tiny_package

from segmed.archive.watch.snapshot import read_snapshot
from segmed.io.dicom.write import Identity, write_series
from segmed.metatensor import MetaTensor

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

WITHIN_S = 240.0


@pytest.fixture(scope="module")
def api(prefect: Server) -> Api:
    return Api(prefect.health.removesuffix("/health"))


@pytest.fixture
def study(tmp_path: Path) -> list[Path]:
    voxels = np.random.default_rng(9).integers(0, 900, (1, 12, 12, 8)).astype(np.float32)
    volume = MetaTensor(torch.from_numpy(voxels), affine=torch.eye(4, dtype=torch.float64))
    return write_series(tmp_path / "sent", volume, identity=Identity(patient_id="P"))


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def results(out: Path) -> list[Path]:
    return list((out / "segmentations").glob("*.dcm"))


def logs_of(api: Api, run: str) -> str:
    found = api.post("/logs/filter", logs={"flow_run_id": {"any_": [run]}}, limit=200)
    return "\n".join(str(entry["message"]) for entry in found)


def test_deployed_watch_segments_what_is_sent_and_ends_when_it_is_cancelled(
    api: Api, tmp_path: Path, study: list[Path]
) -> None:
    tiny_package().save(tmp_path / "package")
    (tmp_path / "scans").mkdir()
    out, port, env = tmp_path / "watched", storm.free_port(), environment(api, tmp_path)
    job = {
        "address": f"dimse://{storm.TITLE}@127.0.0.1:{port}",
        "models": [str(tmp_path / "package")],
        "out_dir": str(out),
        "format": "dicom-seg",
        "quiet_s": 0.5,
        "engine": "torch",
    }
    serve = serve_command(str(tmp_path / "scans"), tmp_path, "--nightly-cron", NEVER)
    with running(serve, tmp_path, env, "serve.log") as log:
        assert wait_for(lambda: "watch" in names(api), WITHIN_S), log.read_text(encoding="utf-8")[
            -3000:
        ]
        prefect = [sys.executable, "-m", "prefect"]
        words = ["deployment", "run", "watch/watch", "-p", f"job={json.dumps(job)}"]
        run_quietly([*prefect, *words], tmp_path, env)
        assert wait_for(lambda: listens(port), WITHIN_S), log.read_text(encoding="utf-8")[-3000:]
        [run] = api.runs("watch")
        assert run["name"].startswith("watch")
        assert storm.send(port, study[:-1]) == study[:-1]
        assert wait_for(lambda: results(out), WITHIN_S), log.read_text(encoding="utf-8")[-3000:]
        [early] = results(out)
        assert storm.send(port, study[-1:]) == study[-1:]
        assert wait_for(lambda: results(out) and early not in results(out), WITHIN_S)
        assert len(results(out)) == 1
        assert api.get(f"/flow_runs/{run['id']}")["state_type"] == "RUNNING"
        said = wait_for(lambda: "after its last image" in logs_of(api, run["id"]), WITHIN_S)
        assert said, logs_of(api, run["id"])
        run_quietly([*prefect, "flow-run", "cancel", run["id"]], tmp_path, env)
        assert wait_for(
            lambda: api.get(f"/flow_runs/{run['id']}")["state_type"] == "CANCELLED", WITHIN_S
        )
        assert wait_for(lambda: not listens(port), WITHIN_S)
    found = read_snapshot(out)
    assert found is not None
    assert not found.studies


def names(api: Api) -> set[str]:
    """Deployments on the server."""
    return {str(one["name"]) for one in api.post("/deployments/filter")}
