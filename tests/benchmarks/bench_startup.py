"""CPU seconds of commands that compute nothing, and of one small prediction.

Run: `python -m tests.benchmarks.bench_startup [--repeats 3]`.

Each command runs in a process of its own; the least of the repeats counts, user and system time
together. The peers are bare imports in the same run: what `import torch`, `import monai` and
`import mlflow` cost on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results" / "startup.json"

LOOK_UPS = {
    "help": "--help",
    "archive status": "archive status out",
    "model list": "model list",
    "model show": "model show package",
    "wrong manifest": "plan absent.json",
    "wrong model": "predict one_image.nii --model absent -o out",
    "wrong image": "predict absent.nii --model package -o out",
    "wrong source": "archive segment absent --model package -o out",
}
PREDICTION = "predict one_image.nii --model package --engine torch --device cpu -o out"
CACHED = "predict one_image.nii --model package --device cpu --cache-dir converted -o cached"
"""With OpenVINO; the first call, which converts, is not the least one."""

PEERS = ("torch", "monai", "mlflow")

BARE = "import sys; sys.modules['openvino_telemetry'] = None; import torch, openvino"
"""Imports that a prediction with OpenVINO cannot do without; bar 2.5 times their cost."""

SETTING_UP = (
    "import sys; from pathlib import Path; from tiny_data import hippocampus_package, write_case;"
    "write_case(Path('.'), 'one', 1); hippocampus_package().save(Path('package'))"
)


def cpu_seconds(words: list[str], folder: Path, repeats: int) -> float:
    """The least CPU seconds of a command, over several calls."""
    found = []
    for _ in range(repeats):
        before = os.times()
        subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, check=False)
        after = os.times()
        found.append(
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )
    return round(min(found), 3)


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory(prefix="segmed-bench-") as scratch:
        folder = Path(scratch)
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "tests")}
        subprocess.run([sys.executable, "-c", SETTING_UP], cwd=folder, env=environment, check=True)
        command = ["-m", "pipelines.cli"]
        rows = {
            **{f"import {n}": cpu_seconds(["-c", f"import {n}"], folder, repeats) for n in PEERS},
            **{
                name: cpu_seconds([*command, *shlex.split(words)], folder, repeats)
                for name, words in LOOK_UPS.items()
            },
        }
        whole = cpu_seconds([*command, *shlex.split(PREDICTION)], folder, repeats)
        bare = cpu_seconds(["-c", BARE], folder, repeats)
        cached = cpu_seconds([*command, *shlex.split(CACHED)], folder, repeats + 1)
    rows["one prediction"] = whole
    rows["import torch, openvino"] = bare
    rows["one prediction, cached conversion"] = cached
    ratio = round(cached / bare, 3)
    rows["one prediction besides torch"] = round(whole - rows["import torch"], 3)
    for name, seconds in rows.items():
        print(f"{name:<34} {seconds:6.2f} CPU s")
    print(f"{'prediction by bare imports':<34} {ratio:6.2f} times")
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    record = {"machine": machine, "cpu_seconds": rows, "prediction_by_bare_imports": ratio}
    RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
