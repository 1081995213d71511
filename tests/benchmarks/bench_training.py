"""Training beside a plain MONAI loop, beside the bare passes, and where its time goes.

Run: `python -m tests.benchmarks.bench_training [PART...] [--cpu-seconds N]`; all parts by default.
Parts: `race` (Dice over CPU seconds of training on hippocampus, fold 0 held out: segmed's `unet`
against a plain MONAI loop), `step` (steps a second against the bare forward and backward passes on
a resident tensor, small and full U-Net), `phases` (share of a training's time spent waiting for
data, computing, validating and writing checkpoints). One thread each. Results join the JSON in
`results`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet
from monai.transforms import Compose, RandSpatialCropd, SpatialPadd
from torch import Tensor, nn

from segmed.manifest import Manifest, build_manifest
from segmed.plan import Plan
from segmed.plan.make import make_plan
from segmed.training import Budget, Settings, choose_device, fit, loop
from segmed.training.data import load_cases, make_batch, one_ahead
from segmed.training.distributed import Crew
from segmed.training.sampling import TrainingCase
from segmed.training.trainer import MEMORY_FORMAT, Trainer
from segmed.training.validation import validate

RESULTS = Path(__file__).parent / "results" / "training.json"
HIPPOCAMPUS = Path(__file__).resolve().parents[3] / "shared" / "data" / "hippocampus"
PARTS = ("race", "step", "phases")
PEER_PATCH = (40, 56, 40)
PEER_FEATURES = (16, 16, 32, 64, 128, 16)
PEER_POINTS = 8
"""Points of the peer's curve, evenly over the budget."""

Record = dict[str, Any]


@dataclass
class Stopwatch:
    """CPU seconds of this process, all threads together, without those spent in `paused`."""

    left_out: float = field(default_factory=time.process_time)

    def __call__(self) -> float:
        return time.process_time() - self.left_out

    @contextmanager
    def paused(self) -> Iterator[None]:
        begin = time.process_time()
        yield
        self.left_out += time.process_time() - begin


@dataclass(frozen=True)
class Bench:
    """What every part needs."""

    manifest: Manifest
    plan: Plan
    folder: Path
    cpu_seconds: float

    def cases(self, *, held_out: bool) -> list[TrainingCase]:
        chosen = self.manifest.split(0)[held_out]
        return load_cases(self.manifest, chosen, self.plan, self.folder / "cache")


def race(bench: Bench) -> Record:
    """Both learners on the same cases; validation costs neither of them anything."""
    training, held_out = bench.cases(held_out=False), bench.cases(held_out=True)
    peer = peer_curve(bench, training, held_out)
    ours = our_curve(bench)
    compared = [
        {
            "cpu_seconds": point["cpu_seconds"],
            "peer": point["mean_dice"],
            "segmed": round(between(ours, point["cpu_seconds"]), 4),
        }
        for point in peer
        if point["cpu_seconds"] >= ours[0]["cpu_seconds"]
    ]
    return {
        "what": "mean Dice of the held-out cases over CPU seconds of training, one thread each; "
        "validation is not counted, reading the prepared cases is counted for segmed only",
        "cpu_seconds": bench.cpu_seconds,
        "training_cases": len(training),
        "held_out_cases": len(held_out),
        "segmed": {"network": "unet, as planned", "points": ours},
        "monai_loop": {
            "network": f"BasicUNet, features {PEER_FEATURES}",
            "recipe": f"DiceCELoss, AdamW 3e-3 (constant), batch 2, patches {PEER_PATCH}",
            "points": peer,
        },
        "at_the_peers_points": compared,
        "ahead_at_every_point": all(row["segmed"] > row["peer"] for row in compared),
    }


def our_curve(bench: Bench) -> list[Record]:
    """`fit` as it is, on a clock that counts CPU seconds of training."""
    clock = Stopwatch()

    def validate_unpaid(*arguments: Any) -> tuple[float, dict[str, float]]:
        with clock.paused():
            return validate(*arguments)

    points = []
    with (
        patch.object(loop, "time", SimpleNamespace(monotonic=clock)),
        patch.object(loop, "validate", validate_unpaid),
    ):
        for result in fit(
            bench.manifest,
            bench.plan,
            architecture="unet",
            fold=0,
            budget=Budget(seconds=bench.cpu_seconds),
            out_dir=bench.folder / "race",
            settings=Settings(device="cpu", cache_dir=bench.folder / "cache"),
        ):
            points.append(curve_point("segmed", result.step, result.seconds, result.val_dice))
    return points


def peer_curve(
    bench: Bench, training: list[TrainingCase], held_out: list[TrainingCase]
) -> list[Record]:
    """A plain MONAI loop with every prepared case in memory."""
    torch.manual_seed(0)
    crop = Compose(
        [
            SpatialPadd(keys=("image", "label"), spatial_size=PEER_PATCH),
            RandSpatialCropd(keys=("image", "label"), roi_size=PEER_PATCH, random_size=False),
        ]
    ).set_random_state(seed=0)
    pool = [{"image": case.image, "label": case.label[None]} for case in training]
    order = np.random.default_rng(0)
    network = BasicUNet(spatial_dims=3, in_channels=1, out_channels=3, features=PEER_FEATURES)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    plan = bench.plan.model_copy(update={"patch_size": PEER_PATCH})
    device = choose_device("cpu")
    points: list[Record] = []
    clock = Stopwatch()
    step = 0
    while len(points) < PEER_POINTS:
        network.train()
        chosen = [crop(pool[index]) for index in order.integers(len(pool), size=2)]
        image = torch.stack([item["image"] for item in chosen])
        label = torch.stack([item["label"] for item in chosen])
        optimizer.zero_grad()
        loss = loss_of(network(image), label)
        loss.backward()
        optimizer.step()
        step += 1
        if clock() >= bench.cpu_seconds * (len(points) + 1) / PEER_POINTS:
            with clock.paused():
                _, dice = validate(network, held_out, plan, device)
            points.append(curve_point("monai", step, clock(), dice))
    return points


def curve_point(name: str, step: int, cpu_seconds: float, dice: dict[str, float]) -> Record:
    """One point of a curve, told while it is made."""
    mean = statistics.fmean(dice.values())
    print(f"{name} {cpu_seconds:6.1f} CPU-s, step {step}: Dice {mean:.4f}", flush=True)
    return {
        "step": step,
        "cpu_seconds": round(cpu_seconds, 1),
        "mean_dice": round(mean, 4),
        "dice": {label: round(value, 4) for label, value in dice.items()},
    }


def between(points: list[Record], cpu_seconds: float) -> float:
    """Dice at a time between two points of a curve."""
    times = [point["cpu_seconds"] for point in points]
    return float(np.interp(cpu_seconds, times, [point["mean_dice"] for point in points]))


def step(bench: Bench) -> Record:
    """Whole training steps against the bare passes of the same network, in turns."""
    record: Record = {
        "what": "seconds of a step (batches made, moved, augmented; loss, clipping, optimiser, "
        "averaging) against forward and backward alone on a resident tensor; medians of blocks "
        "taken in turns, one thread",
    }
    training = bench.cases(held_out=False)[:40]
    full = make_plan(bench.manifest, size="full")
    for name, plan, steps in (("small", bench.plan, 6), ("full", full, 2)):
        record[name] = compare_steps(plan, training, steps=steps, rounds=5)
        print(name, record[name], flush=True)
    return record


def compare_steps(plan: Plan, cases: list[TrainingCase], *, steps: int, rounds: int) -> Record:
    """Blocks of whole steps and of bare passes, alternating."""
    torch.manual_seed(0)
    device = choose_device("cpu")
    trainer = Trainer("unet", plan, device=device, crew=Crew())
    batch_size = plan.recipe.batch_size
    whole = slice(0, batch_size)
    batches = one_ahead(lambda n: make_batch(cases, plan, seed=0, step=n, share=whole), 0)
    resident = torch.randn(batch_size, plan.in_channels, *plan.patch_size)
    resident = resident.contiguous(memory_format=MEMORY_FORMAT[plan.spatial_dims])
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
    batches.close()  # type: ignore[attr-defined]
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
    begin = time.monotonic()
    results = list(
        fit(
            bench.manifest,
            bench.plan,
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
        "held_out_cases": len(bench.manifest.split(0)[1]),
        "share": {name: round(value / total, 4) for name, value in seconds.items()},
    }


def main() -> None:
    """Run the parts that were named and add them to the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--cpu-seconds", type=float, default=300.0, help="of each in the race")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    work = {"race": race, "step": step, "phases": phases}
    record: Record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    manifest = build_manifest(HIPPOCAMPUS)
    with tempfile.TemporaryDirectory(prefix="segmed-bench-") as folder:
        bench = Bench(manifest, make_plan(manifest), Path(folder), arguments.cpu_seconds)
        for part in arguments.parts or PARTS:
            load = os.getloadavg()[0]
            record[part] = work[part](bench) | {"load_before": round(load, 1)}
            record |= {"torch": torch.__version__, "machine": platform.machine()}
            record["cores"] = os.cpu_count()
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
