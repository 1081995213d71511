"""`torchrun ... segmed train`: two processes, one training, one result; nobody waits for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_data import write_set

pytestmark = pytest.mark.integration


def torchrun(folder: Path, manifest: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`segmed train` in two processes; killed if they do not end."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = ["-m", "pipelines.cli", "train", str(manifest), "--model", "unet", "--json"]
    out = ["--out", str(folder / "out"), "--plan", str(manifest.with_name("plan.yaml"))]
    repository = Path(__file__).resolve().parents[2]
    paths = os.pathsep.join([str(repository), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*launcher, *command, *out, "--device", "cpu", *options],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        encoding="utf-8",
    )


def test_two_processes_train_score_and_resume_what_is_finished(tmp_path: Path) -> None:
    manifest = write_set(tmp_path)
    first = torchrun(tmp_path, manifest, "--epochs", "2")
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    assert Path(told["package"]).is_dir()
    again = torchrun(tmp_path, manifest, "--epochs", "2", "--resume")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["dice"] == told["dice"]
    longer = torchrun(tmp_path, manifest, "--epochs", "3", "--resume")
    assert longer.returncode == 0, longer.stderr
    history = (tmp_path / "out" / "runs" / "unet" / "fold0" / "history.jsonl").read_text(
        encoding="utf-8"
    )
    assert len(history.splitlines()) == 3
