"""Tracking, registry and gate against a real MLflow server with artifact proxying."""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import requests
import torch
from mlflow import MlflowClient
from servers import Server, mlflow_server, uri_of
from tiny_data import hippocampus_package, tiny_plan, write_set
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.comparing import results, steps
from pipelines.comparing.jobs import TrainJob
from pipelines.registry.versions import Registry
from pipelines.tracking import runs as tracking
from pipelines.tracking.late_delivery import sync
from segmed.errors import PackageError
from segmed.io import read_label
from segmed.manifest import read_manifest
from segmed.training import Budget

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


REPOSITORY = Path(__file__).resolve().parents[2]
on_both_databases = pytest.mark.parametrize("server", ["sqlite", "postgresql"], indirect=True)


def history(uri: str, run_id: str, metric: str) -> dict[int, float]:
    points = MlflowClient(uri).get_metric_history(run_id, metric)
    return {point.step: point.value for point in points}


def train(place: Path, epochs: int, on_epoch: Callable[[int], None]) -> tuple[Path, list]:
    """Really train a small network on cubes; the run folder and its history, epoch by epoch."""
    manifest = write_set(place / "set")
    plan = place / "set/plan.yaml"
    job = TrainJob(manifest, plan, "unet", 0, Budget(epochs=epochs), place / "run")
    steps.train_alone(job, lambda result: on_epoch(result.epoch))
    return job.run_dir, results.read_history(job.run_dir)


def assert_complete(uri: str, written: list) -> None:
    """The training run has every value of every epoch, as the training itself wrote them down."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("cubes")
    newest = client.search_runs(
        [experiment.experiment_id], "tags.`segmed.role` = 'training'", order_by=["start_time DESC"]
    )[0]
    assert newest.info.status == "FINISHED"
    for metric, of in (
        ("val/dice/anterior", lambda entry: entry["val_dice"]["anterior"]),
        ("train/loss", lambda entry: entry["train_loss"]),
        ("val/loss", lambda entry: entry["val_loss"]),
    ):
        known = history(uri, newest.info.run_id, metric)
        assert {e["epoch"]: of(e) for e in written} == {
            step: value for step, value in known.items() if step <= len(written)
        }
    assert client.list_artifacts(newest.info.run_id, "model")


@on_both_databases
def test_server_killed_in_mid_training_and_started_again_has_every_value(
    server: Server, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGMED_TRACKING_WAIT_S", "120")

    def on_epoch(number: int) -> None:
        if number == 5:
            server.stop(signal.SIGKILL)
        if number == 12:
            server.start()

    _, written = train(place, 20, on_epoch)
    assert len(written) == 20
    assert_complete(uri_of(server), written)
    assert not list((place / tracking.OUTBOX_FOLDER).glob("*.jsonl"))


@on_both_databases
def test_training_ends_without_its_server_and_sync_delivers(
    server: Server, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGMED_TRACKING_WAIT_S", "2")
    run_dir, written = train(place, 10, lambda n: server.stop(signal.SIGKILL) if n == 3 else None)
    assert len(written) == 10
    assert (run_dir / "package/model.safetensors").is_file()
    started = time.monotonic()
    away = CliRunner().invoke(app, ["model", "sync"])
    assert away.exit_code == 2
    assert "does not answer" in away.output
    assert time.monotonic() - started < 30
    server.start()
    delivered = CliRunner().invoke(app, ["model", "sync"])
    assert delivered.exit_code == 0, delivered.output
    assert "of 2 runs" in delivered.output
    assert_complete(uri_of(server), written)
    assert sync(place) == (0, 0)


def package_at(place: Path, *, padding_mb: int = 0, seed: int = 0) -> Path:
    package = hippocampus_package(seed)
    if padding_mb:
        padded = {**package.state, "padding": torch.zeros(padding_mb * 2**18)}
        package = dataclasses.replace(package, state=padded)
    return package.save(place / f"package{seed}")


def test_mlflow_predicts_what_segmed_predicts(place: Path) -> None:
    package_dir = package_at(place)
    image = REPOSITORY / "data_manifests/hippocampus_sample/images/hippocampus_001.nii.gz"
    registry = Registry()
    registry.register(package_dir, "served", alias="champion")
    version = registry.version("served", "champion")
    words = ["predict", str(image), "--model", "models:/served@champion", "-o", "ours"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    (ours,) = (place / "ours").glob("*.nii.gz")

    model = registry.client.download_artifacts(version.run_id, "model", str(place))
    content = base64.b64encode(image.read_bytes()).decode()
    rows = {
        "columns": ["image", "name", "content"],
        "data": [
            [str(image), None, None],
            [str(place / "none.nii"), None, None],
            [None, "bytes.nii.gz", content],
        ],
    }
    table = place / "input.json"
    table.write_text(json.dumps({"dataframe_split": rows}), encoding="utf-8")
    command = [sys.executable, "-m", "mlflow", "models", "predict", "-m", model, "-i", str(table)]
    command += ["-o", str(place / "answer.json"), "--env-manager", "local"]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=place, env=env, check=False, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = pd.DataFrame(
        json.loads((place / "answer.json").read_text(encoding="utf-8"))["predictions"]
    )
    assert list(answer["status"]) == ["done", "refused", "done"], list(answer["reason"])
    assert answer["model_hash"][0] == version.hash
    expected = read_label(ours)
    assert len(np.unique(np.asarray(expected))) > 1
    for row in (0, 2):
        theirs = read_label(place / answer["segmentation"][row])
        assert np.array_equal(np.asarray(expected), np.asarray(theirs))
        assert np.array_equal(np.asarray(expected.affine), np.asarray(theirs.affine))
    measured = json.loads(answer["volumes_ml"][0])
    voxel_ml = float(np.prod(np.linalg.norm(np.asarray(expected.affine)[:3, :3], axis=0))) / 1000
    for entry in tiny_plan().labels:
        counted = float((np.asarray(expected) == entry.value).sum()) * voxel_ml
        assert measured[entry.name] == pytest.approx(counted)


def test_weights_changed_on_the_server_are_refused(server: Server, place: Path) -> None:
    registry = Registry()
    version = registry.register(package_at(place, seed=11), "tampered")
    run_folder = next(server.log.parent.rglob(version.run_id))
    (weights,) = run_folder.rglob("model.safetensors")
    torch.save({"weight": torch.zeros(3)}, weights)
    with pytest.raises(PackageError, match="sha256 differs"):
        registry.resolve("models:/tampered/1")


def test_cached_model_works_with_the_server_gone(
    server: Server, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry()
    registry.register(package_at(place), "cached", alias="champion")
    first = registry.resolve("models:/cached@champion")
    server.stop()
    with caplog.at_level(logging.WARNING):
        assert Registry().resolve("models:/cached@champion") == first
    assert "the registry is away" in caplog.text
    server.start()


def test_large_package_registers_in_bounded_memory(place: Path) -> None:
    package_dir = package_at(place, padding_mb=400)
    code = (
        "import sys; from pathlib import Path\n"
        "from pipelines.registry.versions import Registry\n"
        "registry = Registry(); registry.names()\n"
        "def peak():\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return int(next(x for x in lines if x.startswith('VmHWM')).split()[1])\n"
        "Path('/proc/self/clear_refs').write_text('5')\n"
        "before = peak()\n"
        "registry.register(Path(sys.argv[1]), 'large')\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(package_dir)],
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    grown_kb = int(done.stdout.split()[-1])
    print(f"memory grew by {grown_kb / 1024:.0f} MB for a package of 400 MB")
    assert grown_kb < 3 * 400 * 1024


def test_logging_costs_little(place: Path) -> None:
    manifest = read_manifest(write_set(place / "set"))
    values = {f"val/dice/structure{index}": 0.5 for index in range(50)}
    with tracking.comparison("cost", manifest, tiny_plan()) as parent:
        parent.run_id()
        started = time.thread_time()
        waited = time.perf_counter()
        for step in range(60):
            parent.metrics(values, step=step)
        waited = time.perf_counter() - waited
        busy = time.thread_time() - started
    print(f"60 epochs of 50 metrics: {waited:.3f} s waited, {busy:.3f} s busy")
    assert waited < 0.6


def test_basic_auth_end_to_end_by_environment_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = {"admin": "long-test-password-1", "reader": "long-test-password-2"}
    guarded = mlflow_server(tmp_path / "guarded", auth=True)
    guarded.start()
    said = []

    def run(*words: str | Path, user: str | None, status: int = 0) -> str:
        for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            monkeypatch.delenv(name, raising=False)
        if user is not None:
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", secrets[user])
        result = CliRunner().invoke(app, ["--verbose", *map(str, words)])
        said.append(result.output)
        assert result.exit_code == status, result.output
        return result.output

    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri_of(guarded))
    monkeypatch.setenv("SEGMED_CACHE", str(work / "cache"))
    try:
        manifest = write_set(work / "set")
        train = ("train", manifest, "--model", "unet", "--plan", work / "set/plan.yaml")
        train = (*train, "--epochs", "2", "-o", work / "out")
        refused = run(*train, user=None, status=2)
        assert "refuses access (401): set MLFLOW_TRACKING_USERNAME" in refused
        run(*train, user="admin")
        (package,) = (work / "out").rglob("package")
        run("model", "register", package, "--name", "cubes", "--alias", "champion", user="admin")
        made = requests.post(
            f"{uri_of(guarded)}/api/2.0/mlflow/users/create",
            json={"username": "reader", "password": secrets["reader"]},
            auth=("admin", secrets["admin"]),
            timeout=30,
        )
        assert made.ok, made.text
        (work / "archive").mkdir()
        shutil.copy(work / "set/case0_image.nii", work / "archive")
        archive = ("archive", "segment", work / "archive", "--model", "models:/cubes@champion")
        assert "version 1" in run(*archive, "-o", work / "done", user="reader")
        denied = run("model", "rollback", "cubes", user="reader", status=2)
        assert "no 'previous'" in denied
        other = package_at(work, seed=7)
        denied = run("model", "register", other, "--name", "cubes", user="reader", status=2)
        assert "refuses access (403)" in denied
    finally:
        guarded.stop()
    told = "".join(said) + caplog.text + guarded.log.read_text(encoding="utf-8")
    files = [path.read_bytes() for path in work.rglob("*") if path.is_file()]
    for secret in secrets.values():
        assert secret not in told
        assert not any(secret.encode() in content for content in files)
