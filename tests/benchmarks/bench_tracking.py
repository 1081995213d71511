"""Cost of logging a training and of registering a large package, beside MLflow alone.

Run: `python -m tests.benchmarks.bench_tracking [--seconds 60] [--megabytes 400]`.

A real MLflow server with artifact proxying runs on loopback. A real training on the bundled sample
logs 50 values beside its own after every epoch; its cost is the time that the training thread
waits in the calls plus the CPU time of the thread that delivers. The peers send the same values
from the training's own thread: MLflow's `log_metrics` (a request an epoch) and `log_metric` (a
request a value). Peaks of memory are the growth of VmHWM of the registering process and of the
server's processes, in MB of 2^20 bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch
from mlflow import MlflowClient

from pipelines.tracking import runs as tracking
from segmed.manifest import read_manifest
from segmed.models import build_model
from segmed.package import ModelPackage
from segmed.plan.make import make_plan
from segmed.training import Budget, fit
from tests.integration.servers import Server, mlflow_server, uri_of

RESULTS = Path(__file__).parent / "results" / "tracking.json"
SAMPLE = Path(__file__).resolve().parents[2] / "data_manifests" / "hippocampus_sample.json"
VALUES = {f"val/dice/structure{index:02d}": 0.5 + index / 1000 for index in range(50)}
PEER_EPOCHS = 10


def flusher_cpu() -> float:
    """CPU seconds of the threads that deliver, in this process."""
    threads = [t for t in threading.enumerate() if t.name == "segmed-flusher"]
    clocks = [time.pthread_getcpuclockid(t.ident) for t in threads if t.ident is not None]
    return sum(time.clock_gettime(clock) for clock in clocks)


def logged_training(folder: Path, seconds: float) -> dict[str, Any]:
    """Train for so long and log; what the calls took and what the delivery computed."""
    manifest = read_manifest(SAMPLE)
    plan = make_plan(manifest)
    recipe = plan.recipe.model_copy(update={"iterations_per_epoch": 5})
    plan = plan.model_copy(update={"recipe": recipe})
    waited, epochs = 0.0, 0
    with tracking.comparison("cost", manifest, plan, folder=folder) as parent:
        parent.run_id()
        before = flusher_cpu()
        begun = time.perf_counter()
        for result in fit(
            manifest,
            plan,
            architecture="fcn8s",
            fold=0,
            budget=Budget(seconds=seconds),
            out_dir=folder / "run",
        ):
            start = time.perf_counter()
            parent.epoch(result)
            parent.metrics(VALUES, step=result.epoch)
            waited += time.perf_counter() - start
            epochs += 1
        wall = time.perf_counter() - begun
        delivering = flusher_cpu() - before
    return {
        "seconds": round(wall, 2),
        "epochs": epochs,
        "waited_seconds": round(waited, 4),
        "delivery_cpu_seconds": round(delivering, 4),
        "share_percent": round(100 * (waited + delivering) / wall, 3),
    }


def peer(uri: str, *, one_request: bool) -> float:
    """Seconds an epoch of MLflow's own calls."""
    client = MlflowClient(uri)
    run_id = client.create_run("0").info.run_id
    import mlflow  # noqa: PLC0415 - the fluent calls are the peer

    mlflow.set_tracking_uri(uri)
    with mlflow.start_run(run_id=run_id):
        begun = time.perf_counter()
        for step in range(PEER_EPOCHS):
            if one_request:
                mlflow.log_metrics(VALUES, step=step)
            else:
                for name, value in VALUES.items():
                    mlflow.log_metric(name, value, step=step)
        return (time.perf_counter() - begun) / PEER_EPOCHS


CHILD = """
import sys
from pathlib import Path
from pipelines.registry.versions import Registry
registry = Registry()
registry.names()
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith("VmHWM")).split()[1])
Path("/proc/self/clear_refs").write_text("5")
before = peak()
registry.register(Path(sys.argv[1]), "large")
print(peak() - before)
"""


def peaks(server: Server) -> int:
    """Sum of the peaks of the server's processes, in kB."""
    assert server.process is not None
    root = psutil.Process(server.process.pid)
    total = 0
    for process in [root, *root.children(recursive=True)]:
        lines = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines()
        total += int(next((x for x in lines if x.startswith("VmHWM")), "x 0").split()[1])
    return total


def large_package(server: Server, folder: Path, megabytes: int) -> dict[str, Any]:
    """Register a package whose weights are so large."""
    plan = make_plan(read_manifest(SAMPLE))
    options = dict(plan.networks["fcn8s"].options)
    network = build_model("fcn8s", spatial_dims=3, in_channels=1, num_classes=3, **options)
    parts = {f"padding{index}": torch.rand(2**20) for index in range(megabytes // 4)}
    package = ModelPackage("fcn8s", options, plan, {**network.state_dict(), **parts})
    path = package.save(folder / "large")
    before = peaks(server)
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)],
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    return {
        "file_mb": round((path / "model.safetensors").stat().st_size / 2**20),
        "seconds": round(time.perf_counter() - begun, 1),
        "client_grew_mb": round(int(done.stdout.split()[-1]) / 1024, 1),
        "server_grew_mb": round((peaks(server) - before) / 1024, 1),
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--megabytes", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = mlflow_server(folder / "server")
        server.start()
        try:
            os.environ["MLFLOW_TRACKING_URI"] = uri_of(server)
            training = logged_training(folder, options.seconds)
            ours = training["waited_seconds"] / training["epochs"]
            rows = {
                "segmed": ours,
                "mlflow.log_metrics": peer(uri_of(server), one_request=True),
                "mlflow.log_metric each": peer(uri_of(server), one_request=False),
            }
            package = large_package(server, folder, options.megabytes)
        finally:
            server.stop()
    print(f"logging took {training['share_percent']} % of a training of {training['seconds']} s")
    for label, seconds in rows.items():
        print(f"{label:24} {1000 * seconds:8.2f} ms an epoch waited, {seconds / ours:8.1f} times")
    print(f"registering {package['file_mb']} MB: {package}")
    record = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "mlflow": metadata.version("mlflow"),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "training": training,
        "waited_ms_an_epoch": {label: round(1000 * s, 3) for label, s in rows.items()},
        "large_package": package,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
