"""The Kubernetes work pool's template: a real server takes it, and a deployment to such a pool."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prefect_client import Api
from servers import Server

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

REPOSITORY = Path(__file__).resolve().parent.parent.parent
TEMPLATE = REPOSITORY / "docker/kubernetes/job-template.json"


def test_server_takes_the_template_and_a_deployment(prefect: Server, tmp_path: Path) -> None:
    api = Api(prefect.health.removesuffix("/health"))
    env = {
        **os.environ,
        "PREFECT_API_URL": api.url,
        "PREFECT_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(REPOSITORY),
    }
    create = [sys.executable, "-m", "prefect", "work-pool", "create", "segmed-k8s"]
    create += ["--type", "kubernetes", "--base-job-template", str(TEMPLATE)]
    code = "from pipelines.cli import main; main()"
    serve = [sys.executable, "-c", code, "serve", "--work-pool", "segmed-k8s", "-o", "/data/out"]
    serve += ["--archive", "/archive", "--model", "models:/hippocampus@champion"]
    for command in (create, serve):
        done = subprocess.run(
            command,
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stdout + done.stderr
    pool = api.get("/work_pools/segmed-k8s")
    assert pool["type"] == "kubernetes"
    assert pool["base_job_template"] == json.loads(TEMPLATE.read_text(encoding="utf-8"))
    found = {entry["name"]: entry for entry in api.post("/deployments/filter")}
    assert found["nightly"]["work_pool_name"] == "segmed-k8s"
    assert found["nightly"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"


def test_every_blank_of_the_manifest_is_a_variable_with_a_meaning() -> None:
    template = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    blanks = set(re.findall(r"{{ (\w+) }}", json.dumps(template["job_configuration"])))
    variables = template["variables"]["properties"]
    assert blanks <= variables.keys()
    assert all(variables[name].get("description") for name in blanks)
