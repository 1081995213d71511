"""Starts a script in several processes, as `torchrun` does, or in one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from segmed.plan import Plan, write_plan

HERE = Path(__file__).resolve().parent
TRAIN = HERE / "train_in_process_group.py"
STEP = HERE / "step_in_process_group.py"
SAMPLE = HERE.parents[1] / "data_manifests" / "hippocampus_sample.json"


def prepare(folder: Path, plan: Plan) -> Path:
    """A working folder with the plan."""
    folder.mkdir()
    write_plan(plan, folder / "plan.yaml")
    return folder


def launch(
    folder: Path, what: str, *, processes: int, script: Path = TRAIN
) -> subprocess.Popen[str]:
    """Start a script with folder, manifest and `what` as its arguments."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    paths = [str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, str(script), str(folder), str(SAMPLE), what],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
