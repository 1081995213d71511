"""SIGTERM, as a supervisor sends it: an archive run leaves its outcomes and goes on later."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_data import tiny_plan

from segmed.archive import archive_status
from segmed.errors import UsageError
from segmed.models import build_model
from segmed.package import ModelPackage

REPOSITORY = Path(__file__).resolve().parents[3]
IMAGES = REPOSITORY / "data_manifests" / "hippocampus_sample" / "images"
COMMAND = [sys.executable, "-c", "from pipelines.cli import main; main()", "archive", "segment"]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """The forty images of the bundled sample, and an untrained network."""
    plan = tiny_plan()
    options = dict(plan.networks["unet"].options)
    network = build_model("unet", spatial_dims=3, in_channels=1, num_classes=3, **options)
    torch.manual_seed(0)
    ModelPackage("unet", options, plan, network.state_dict()).save(tmp_path / "package")
    (tmp_path / "scans").mkdir()
    for path in sorted(IMAGES.glob("*.nii.gz")):
        shutil.copy(path, tmp_path / "scans")
    return tmp_path


def words(archive: Path) -> list[str]:
    return [*COMMAND, "scans", "--model", "package", "-o", "out"]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def done_so_far(archive: Path) -> int:
    try:
        return archive_status(archive / "out").counts["done"]
    except UsageError:  # the run has not made it yet
        return 0


def test_archive_run_that_is_terminated_writes_its_outcomes_and_continues(archive: Path) -> None:
    running = subprocess.Popen(
        words(archive),
        cwd=archive,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while done_so_far(archive) < 2 and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors.decode()
    assert re.search(rb"interrupted; continue with: \S*segmed archive segment", errors), errors
    assert b"Traceback" not in errors
    outcomes = json.loads((archive / "out" / "outcomes.json").read_text(encoding="utf-8"))
    ended = [entry for entry in outcomes if entry["status"] == "done"]
    assert 2 <= len(ended) < 40

    again = subprocess.run(
        words(archive), cwd=archive, env=environment(), capture_output=True, check=False
    )
    assert again.returncode == 0, again.stderr.decode()
    assert archive_status(archive / "out").counts["done"] == 40
