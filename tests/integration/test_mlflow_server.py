"""Tracking, registry and gate against a real MLflow server with artifact proxying."""

from __future__ import annotations

import base64
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from postgres import Postgres
from servers import Server, mlflow_server, uri_of
from tiny_data import tiny_plan, write_set
from typer.testing import CliRunner

from pipelines import promotion, steps, tracking
from pipelines.archiving import ArchiveJob, run_archive
from pipelines.cli.app import app
from pipelines.jobs import TrainJob
from pipelines.registry import Registry
from segmed.errors import PackageError, ServiceError, UsageError
from segmed.io import read_label
from segmed.manifest import read_manifest
from segmed.models import build_model
from segmed.package import ModelPackage
from segmed.training import Budget, EpochResult

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


REPOSITORY = Path(__file__).resolve().parents[2]
on_both_databases = pytest.mark.parametrize("server", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(scope="module")
def sqlite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = mlflow_server(tmp_path_factory.mktemp("server"))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
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


def epoch(number: int) -> EpochResult:
    dice = {"anterior": number / 100, "posterior": number / 200}
    return EpochResult(number, number, 1.0 / number, 2.0 / number, dice, 1e-3, float(number))


def history(uri: str, run_id: str, metric: str) -> dict[int, float]:
    points = MlflowClient(uri).get_metric_history(run_id, metric)
    return {point.step: point.value for point in points}


@on_both_databases
def test_server_killed_and_started_again_has_every_value(
    server: Server, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(write_set(place / "set"))
    monkeypatch.setenv("SEGMED_TRACKING_WAIT_S", "120")
    with (
        tracking.comparison("killed", manifest, tiny_plan()) as parent,
        parent.child("unet", 0) as run,
    ):
        run_id = run.run_id()
        for number in range(1, 21):
            run.epoch(epoch(number))
            if number == 5:
                server.stop()
            if number == 15:
                server.start()
    for metric in ("val/dice/anterior", "train/loss", "val/loss"):
        assert sorted(history(uri_of(server), run_id, metric)) == list(range(1, 21))
    assert MlflowClient(uri_of(server)).get_run(run_id).info.status == "FINISHED"


@on_both_databases
def test_server_gone_for_good_loses_nothing_and_sync_delivers(
    server: Server, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(write_set(place / "set"))
    monkeypatch.setenv("SEGMED_TRACKING_WAIT_S", "2")
    with (
        tracking.comparison("gone", manifest, tiny_plan()) as parent,
        parent.child("unet", 0) as run,
    ):
        run_id = run.run_id()
        run.epoch(epoch(1))
        server.stop()
        for number in range(2, 11):
            run.epoch(epoch(number))
    started = time.monotonic()
    with pytest.raises(ServiceError, match="does not answer"):
        tracking.sync(place)
    assert time.monotonic() - started < 30
    server.start()
    records, runs = tracking.sync(place)
    assert records > 9
    assert runs == 2
    values = history(uri_of(server), run_id, "val/dice/anterior")
    assert values == {number: number / 100 for number in range(1, 11)}
    client = MlflowClient(uri_of(server))
    assert client.get_run(run_id).info.status == "FINISHED"
    assert tracking.sync(place) == (0, 0)


def trained(place: Path, manifest: Path, epochs: int, name: str) -> Path:
    plan = manifest.parent / "plan.yaml"
    job = TrainJob(manifest, plan, "unet", 0, Budget(epochs=epochs), place / name)
    return steps.train_alone(job).package_dir


@on_both_databases
def test_story_of_promotion_and_rollback(place: Path) -> None:
    manifest = write_set(place / "set", training=4, test=6)
    weak = trained(place, manifest, 1, "weak")
    good = trained(place, manifest, 40, "good")
    registry = Registry()
    registry.register(weak, "cubes", alias="champion")
    registry.register(good, "cubes", alias="challenger")
    rules = place / "gate.yaml"
    rules.write_text(
        "rules: [{metric: dice, margin: 0.01}]\nmax_more_missed: 100\n"
        "max_more_false_positives: 100\nmax_slowdown: 100\n"
    )
    accepted = promotion.promote("cubes@challenger", manifest=manifest, rules=rules)
    assert accepted.promoted, accepted.lines()
    assert archive_hash(place, "new") == ModelPackage.load(good).hash

    registry.set_alias("cubes", "challenger", "1")
    refused = promotion.promote("cubes@challenger", manifest=manifest, rules=rules)
    assert not refused.promoted
    assert any(line.startswith("FAIL  dice of mean") for line in refused.lines())
    assert registry.version("cubes", "champion").version == "2"
    tags = registry.version("cubes", "1").tags
    assert tags["segmed.decision"].startswith("refused at")
    evidence = registry.client.list_artifacts(
        registry.version("cubes", "1").run_id, tags["segmed.evidence"]
    )
    assert {Path(entry.path).name for entry in evidence} >= {"decision.json", "report.html"}

    with pytest.raises(UsageError, match="needs a reason"):
        promotion.promote("cubes@challenger", force="  ")
    registry.rollback("cubes")
    assert archive_hash(place, "old") == ModelPackage.load(weak).hash
    forced = promotion.promote("cubes/2", force="better on the new scanner")
    assert forced.promoted
    assert registry.version("cubes", "2").tags["segmed.forced"] == "better on the new scanner"


def archive_hash(place: Path, out: str) -> str:
    """Segment two images with the champion; the hash that the outputs name."""
    source = place / "archive"
    source.mkdir(exist_ok=True)
    for index in (0, 1):
        shutil.copy(place / f"set/case{index}_image.nii", source)
    record = run_archive(ArchiveJob(str(source), ("models:/cubes@champion",), place / out))
    assert [entry["status"] for entry in record["outcomes"]] == ["done", "done"]
    (written,) = json.loads((place / out / "model.json").read_text()).values()
    outcomes = json.loads((place / out / "outcomes.json").read_text())
    assert {entry["package"] for entry in outcomes} == {written["hash"]}
    assert written["version"] == Registry().version("cubes", "champion").version
    return str(written["hash"])


def package_at(place: Path, *, padding_mb: int = 0) -> Path:
    plan = tiny_plan()
    options = dict(plan.networks["unet"].options)
    torch.manual_seed(0)
    network = build_model("unet", spatial_dims=3, in_channels=1, num_classes=3, **options)
    state = dict(network.state_dict())
    if padding_mb:
        state["padding"] = torch.zeros(padding_mb * 2**18)
    return ModelPackage("unet", options, plan, state).save(place / "package")


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
    table.write_text(json.dumps({"dataframe_split": rows}))
    command = [sys.executable, "-m", "mlflow", "models", "predict", "-m", model, "-i", str(table)]
    command += ["-o", str(place / "answer.json"), "--env-manager", "local"]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=place, env=env, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answer = pd.DataFrame(json.loads((place / "answer.json").read_text())["predictions"])
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
    version = registry.register(package_at(place), "tampered")
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
        "from pipelines.registry import Registry\n"
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
        [sys.executable, "-c", code, str(package_dir)], capture_output=True, text=True, check=True
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


def test_basic_auth_by_environment_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = mlflow_server(tmp_path / "guarded", auth=True)
    guarded.start()
    try:
        monkeypatch.setenv("SEGMED_CACHE", str(tmp_path / "cache"))
        uri = uri_of(guarded)
        with pytest.raises(UsageError, match=r"refuses access.*MLFLOW_TRACKING_USERNAME"):
            tracking.connect_quietly(uri)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "long-test-password-1")
        registry = Registry(tmp_path, uri=uri)
        registry.register(package_at(tmp_path), "guarded", alias="champion")
        assert registry.resolve("models:/guarded@champion").version == "1"
        assert "long-test-password" not in caplog.text
    finally:
        guarded.stop()
