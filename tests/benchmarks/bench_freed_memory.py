"""PyTorch on a CPU that keeps what it frees, beside PyTorch as it comes.

Run: `python -m tests.benchmarks.bench_freed_memory [--rounds 3]`. Each case runs in two processes,
since the setting holds for a whole process, in turns; the least CPU time of each counts. Cases: one
window of 96^3 through the full-width U-Net, and training steps of small U-Nets with 3 and 149
classes. Results: `results/freed_memory.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from segmed.freed_memory import keep_freed_memory
from segmed.losses import make_loss
from segmed.models import build_model
from segmed.models.fast_kernels import training_format
from tests.benchmarks.inference_blend import CPU, Record

RESULTS = Path(__file__).parent / "results" / "freed_memory.json"
REPEATS = 5


@dataclass(frozen=True)
class Case:
    """A network and its input.

    Attributes:
        widths: Features of each level.
        patch: Voxels.
        batch: Patches at once.
        num_classes: Output channels.
        trains: A step of training instead of a forward pass.
    """

    widths: tuple[int, ...]
    patch: tuple[int, int, int]
    batch: int
    num_classes: int
    trains: bool

    def action(self) -> Callable[[], object]:
        """One forward pass or one step."""
        levels = len(self.widths)
        network = build_model(
            "unet",
            spatial_dims=3,
            in_channels=1,
            num_classes=self.num_classes,
            widths=self.widths,
            kernels=[[3] * 3] * levels,
            strides=[[1] * 3] + [[2] * 3] * (levels - 1),
        )
        image = torch.randn(self.batch, 1, *self.patch)
        if not self.trains:
            return lambda: torch.inference_mode()(network.eval())(image)
        layout = training_format(3, CPU)
        network.to(memory_format=layout)  # type: ignore[call-overload]  # missing from the stub
        image = image.contiguous(memory_format=layout)
        label = torch.randint(0, self.num_classes, (self.batch, *self.patch))
        loss_of = make_loss("dice_ce", num_classes=self.num_classes)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

        def step() -> None:
            optimizer.zero_grad()
            loss_of(network(image), label).backward()
            optimizer.step()

        return step


CASES = {
    "window of 96^3, full-width U-Net": Case((32, 64, 128, 256), (96, 96, 96), 1, 3, False),
    "training step, 3 classes": Case((8, 32, 64, 128), (40, 48, 40), 2, 3, True),
    "training step, 149 classes": Case((16, 32, 64, 128), (48, 56, 48), 2, 149, True),
}


def measure(name: str, *, keeps: bool) -> Record:
    """CPU seconds and page faults of one call, in this process."""
    torch.set_num_threads(1)
    if keeps and not keep_freed_memory():
        raise SystemExit("this C library keeps nothing: only GNU's does")
    action = CASES[name].action()
    for _ in range(2):
        action()
    seconds, before = [], resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(REPEATS):
        start = time.process_time()
        action()
        seconds.append(time.process_time() - start)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu_s": min(seconds),
        "page_faults": (used.ru_minflt - before) // REPEATS,
        "peak_mib": used.ru_maxrss / 1024,
    }


def compared(name: str, rounds: int) -> Record:
    """A case in processes of its own, plain and keeping in turns."""
    found: dict[str, list[Record]] = {"plain": [], "keep": []}
    for _ in range(rounds):
        for mode, runs in found.items():
            command = [sys.executable, "-m", __spec__.name, "--child", mode, name]
            done = subprocess.run(
                command, capture_output=True, text=True, encoding="utf-8", check=True
            )
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    least = {mode: min(runs, key=lambda run: run["cpu_s"]) for mode, runs in found.items()}
    return {**least, "times": least["plain"]["cpu_s"] / least["keep"]["cpu_s"]}


def main() -> None:
    """Measure all cases, or one in a child process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=2, metavar=("MODE", "CASE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        mode, name = given.child
        print(json.dumps(measure(name, keeps=mode == "keep")))
        return
    results: Record = {}
    for name in CASES:
        results[name] = compared(name, given.rounds)
        print(f"{name}: {results[name]['times']:.2f} times", flush=True)
    results["environment"] = {
        "machine": platform.machine(),
        "threads": 1,
        "load_average": os.getloadavg()[0],
        "torch": torch.__version__,
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
