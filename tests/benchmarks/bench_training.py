"""Training beside a plain MONAI loop, beside the bare passes, and where its time goes.

Run: `python -m tests.benchmarks.bench_training [PART...] [--cpu-seconds N] [--seed N]`; without a
part all but `two_d`, `atrium` and `sets`. Parts: `race` (`unet` against a plain MONAI loop on
hippocampus), `seven` (each architecture under the same budget), `two_d` (`unet` on isbi2012 and on
chase_db1), `atrium` (`unet` on left_atrium against a MONAI loop at half resolution), `sets` (the
set of `--data` by the default plan), `step` (steps a second against the bare forward and backward
passes on a resident tensor, small and full U-Net), `phases` (where the time of a training goes),
`table` (the Markdown of what is recorded). One thread; budgets are CPU seconds of training, so that
a machine that others use too gives the same figures. Trainings are records in `results/training`,
the rest joins `results/training.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segmed.manifest import build_manifest
from segmed.models import list_models
from segmed.plan import Plan
from segmed.plan.make import make_plan
from segmed.training import Budget, Settings, choose_device, fit
from segmed.training.data import make_batch, one_ahead
from segmed.training.distributed import ProcessGroup
from segmed.training.sampling import TrainingCase
from segmed.training.trainer import Trainer
from tests.benchmarks.training_2d import train_membranes, train_vessels
from tests.benchmarks.training_atrium import train_atrium
from tests.benchmarks.training_runs import Runs, plan_of, train_ours, train_peer
from tests.benchmarks.training_table import write_table

RESULTS = Path(__file__).parent / "results" / "training.json"
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
GROUPS = {"cardiac_mr": r"(patient\d+)"}
"""Pattern of the patient in a case's name, by set in which a patient has several cases."""

PARTS = ("race", "seven", "step", "phases", "table")
Record = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """Inputs of every part.

    Attributes:
        folder: For checkpoints, packages and prepared cases.
        cpu_seconds: Budget of each training.
        seed: Of weights and patches.
        models: Architectures of `seven` and `sets`.
        data: Set of `sets`.
    """

    folder: Path
    cpu_seconds: float
    seed: int
    models: tuple[str, ...]
    data: str

    @cached_property
    def hippocampus(self) -> Runs:
        manifest = build_manifest(DATA / "hippocampus")
        return Runs(
            manifest, plan_of(manifest, self.cpu_seconds), self.folder, self.cpu_seconds, self.seed
        )


def race(bench: Bench) -> None:
    """Both learners on the same cases; validation costs neither of them anything.

    Short runs of segmed's are validated more often, so that the peer's points have one near.
    """
    train_peer(bench.hippocampus)
    share = min(1.0, 360 / bench.cpu_seconds)
    train_ours(replace(bench.hippocampus, validation_share=share), "unet")


def seven(bench: Bench) -> None:
    """Each architecture as planned."""
    for architecture in bench.models:
        train_ours(bench.hippocampus, architecture)


def two_d(bench: Bench) -> None:
    """`unet` on two sets of pictures, with the scores that are usual there."""
    train_membranes(DATA / "isbi2012", bench.folder, bench.cpu_seconds, bench.seed)
    train_vessels(DATA / "chase_db1", bench.folder, bench.cpu_seconds, bench.seed)


def atrium(bench: Bench) -> None:
    """`unet` on volumes that a patch cannot hold at their own spacing."""
    train_atrium(DATA / "left_atrium", bench.folder, bench.cpu_seconds, bench.seed)


def sets(bench: Bench) -> None:
    """A set of volumes by the plan that its fingerprint and the budget give."""
    manifest = build_manifest(DATA / bench.data, name=bench.data, group_by=GROUPS.get(bench.data))
    plan = plan_of(manifest, bench.cpu_seconds)
    runs = Runs(manifest, plan, bench.folder, bench.cpu_seconds, bench.seed)
    for architecture in bench.models:
        train_ours(runs, architecture)


def table(_bench: Bench) -> None:
    """The Markdown of all recorded trainings."""
    print(write_table())


def step(bench: Bench) -> Record:
    """Whole training steps against the bare passes of the same network, in turns."""
    record: Record = {
        "what": "seconds of a step (batches made, moved, augmented; loss, clipping, optimiser, "
        "averaging) against forward and backward alone on a resident tensor; medians of blocks "
        "taken in turns, one thread",
    }
    runs = bench.hippocampus
    training = runs.cases(held_out=False)[:40]
    full = make_plan(runs.manifest, size="full")
    for name, plan, steps in (("small", runs.plan, 6), ("full", full, 2)):
        record[name] = compare_steps(plan, training, steps=steps, rounds=5)
        print(name, record[name], flush=True)
    return record


def compare_steps(plan: Plan, cases: list[TrainingCase], *, steps: int, rounds: int) -> Record:
    """Blocks of whole steps and of bare passes, alternating."""
    torch.manual_seed(0)
    device = choose_device("cpu")
    trainer = Trainer("unet", plan, device=device, process_group=ProcessGroup())
    batch_size = plan.recipe.batch_size
    whole = slice(0, batch_size)
    batches = one_ahead(lambda n: make_batch(cases, plan, seed=0, step=n, share=whole), 0)
    resident = torch.randn(batch_size, plan.in_channels, *plan.patch_size)
    resident = trainer.in_memory_format(resident)
    numbers = iter(range(10**6))

    def train() -> None:
        number = next(numbers)
        float(trainer.step(next(batches), step=number, progress=0.3))

    def bare() -> None:
        passes(trainer.network, resident)

    took: dict[str, list[tuple[float, float]]] = {"step": [], "bare": []}
    for _ in range(2):
        train()
        bare()
    for _ in range(rounds):
        took["bare"].append(block(bare, steps))
        took["step"].append(block(train, steps))
    batches.close()
    middle = {name: np.median(values, axis=0) for name, values in took.items()}
    return {
        "patch": list(plan.patch_size),
        "batch": batch_size,
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "step_wall_s": round(float(middle["step"][0]), 4),
        "step_cpu_s": round(float(middle["step"][1]), 4),
        "bare_wall_s": round(float(middle["bare"][0]), 4),
        "bare_cpu_s": round(float(middle["bare"][1]), 4),
        "rate_against_bare_wall": round(float(middle["bare"][0] / middle["step"][0]), 3),
        "rate_against_bare_cpu": round(float(middle["bare"][1] / middle["step"][1]), 3),
    }


def passes(network: nn.Module, image: Tensor) -> None:
    """Forward and backward, nothing else."""
    network.train()
    network.zero_grad(set_to_none=True)
    network(image).mean().backward()


def block(work: Callable[[], None], times: int) -> tuple[float, float]:
    """Wall and CPU seconds of one piece of work, over a block of them."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        work()
    return (time.perf_counter() - wall) / times, (time.process_time() - cpu) / times


def phases(bench: Bench) -> Record:
    """Two epochs of the planned `unet`, every case validated after each."""
    runs = bench.hippocampus
    begin = time.monotonic()
    results = list(
        fit(
            runs.manifest,
            runs.plan,
            architecture="unet",
            fold=0,
            budget=Budget(epochs=2),
            out_dir=bench.folder / "phases",
            settings=Settings(device="cpu", cache_dir=bench.folder / "cache"),
        )
    )
    total = time.monotonic() - begin
    seconds = {
        name: sum(result.phases_s[name] for result in results) for name in results[0].phases_s
    }
    seconds["start and end"] = total - sum(seconds.values())
    print({name: round(value, 2) for name, value in seconds.items()}, flush=True)
    steps = results[-1].step
    return {
        "what": "share of the wall seconds of a training of two epochs; data: waiting for batches",
        "seconds": round(total, 1),
        "steps": steps,
        "held_out_cases": len(runs.manifest.split(0)[1]),
        "share": {name: round(value / total, 4) for name, value in seconds.items()},
    }


def main() -> None:
    """Run the parts that were named and add them to the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    choices = [*PARTS, "two_d", "atrium", "sets", []]
    parser.add_argument("parts", nargs="*", choices=choices, default=[])
    parser.add_argument("--cpu-seconds", type=float, default=300.0, help="of each training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", nargs="+", choices=list_models(), default=None)
    parser.add_argument("--data", default="hippocampus", help="folder of the part `sets`")
    arguments = parser.parse_args()
    models = tuple(arguments.models or list_models())
    torch.set_num_threads(1)
    work = {f.__name__: f for f in (race, seven, two_d, atrium, sets, step, phases, table)}
    record: Record = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory(prefix="segmed-bench-") as folder:
        bench = Bench(Path(folder), arguments.cpu_seconds, arguments.seed, models, arguments.data)
        for part in arguments.parts or PARTS:
            load = os.getloadavg()[0]
            result = work[part](bench)
            if result is None:
                continue
            record[part] = result | {"load_before": round(load, 1)}
            record |= {"torch": torch.__version__, "machine": platform.machine()}
            record["cores"] = os.cpu_count()
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
