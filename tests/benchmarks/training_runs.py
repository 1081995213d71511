"""Trainings whose curves are compared: segmed's own and a plain MONAI loop, in CPU seconds.

Each run is one JSON file in `results/training`, written anew after each point of its curve, so that
a run that is stopped leaves what it has.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet
from monai.transforms import Compose, RandSpatialCropd, SpatialPadd

from segmed.evaluation import score_cases
from segmed.inference import Predictor
from segmed.manifest import Manifest
from segmed.package import ModelPackage
from segmed.plan import Plan
from segmed.plan.make import make_plan
from segmed.plan.resources import Resources
from segmed.training import Budget, Settings, fit
from segmed.training.data import load_cases
from segmed.training.finish import commit_hash
from segmed.training.sampling import TrainingCase

RUNS = Path(__file__).parent / "results" / "training"
PEER = "monai_loop"
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
class Runs:
    """Inputs of every run.

    Attributes:
        manifest: The image set; its fold 0 is held out.
        plan: The plan of segmed's runs.
        folder: For checkpoints, packages and prepared cases.
        cpu_seconds: Budget: CPU seconds of training; validation is not counted.
        seed: Of weights and patches.
        validation_share: Share of the budget that segmed's validations may take on top.
    """

    manifest: Manifest
    plan: Plan
    folder: Path
    cpu_seconds: float
    seed: int = 0
    validation_share: float = 0.2

    def cases(self, *, held_out: bool) -> list[TrainingCase]:
        chosen = self.manifest.split(0)[held_out]
        return load_cases(self.manifest, chosen, self.plan, self.folder / "cache")

    def key(self, name: str) -> str:
        return f"{self.manifest.name}-{name}-{self.cpu_seconds:.0f}s-seed{self.seed}"

    def keep(self, name: str, record: Record) -> Record:
        """Write what a run has come to."""
        inside, held_out = self.manifest.split(0)
        whole = {
            "data": self.manifest.name,
            "learner": name,
            "cpu_seconds": self.cpu_seconds,
            "seed": self.seed,
            "training_cases": len(inside),
            "held_out_cases": len(held_out),
            **record,
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),
            "torch": torch.__version__,
            "machine": platform.machine(),
            "commit": commit_hash(),
        }
        RUNS.mkdir(parents=True, exist_ok=True)
        path = RUNS / f"{self.key(name)}.json"
        path.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
        return whole


def plan_of(manifest: Manifest, cpu_seconds: float) -> Plan:
    """The default plan for a training of so many CPU seconds."""
    return make_plan(manifest, resources=Resources(cpu_seconds, clock="cpu"))


def train_ours(runs: Runs, architecture: str, *, name: str | None = None) -> Record:
    """`fit` as it is under a budget of CPU seconds, and the package's scores on full grids."""
    name = name or architecture
    out_dir = runs.folder / runs.key(name)
    network = runs.plan.networks[architecture]
    began, wall = time.process_time(), time.monotonic()
    record: Record = {
        "is_finished": False,
        "network": network.model_dump(mode="json"),
        "patch": list(runs.plan.patch_size),
        "recipe": runs.plan.recipe.model_dump(mode="json"),
        "points": [],
    }
    for result in fit(
        runs.manifest,
        runs.plan,
        architecture=architecture,
        fold=0,
        budget=Budget(seconds=runs.cpu_seconds, clock="cpu"),
        out_dir=out_dir,
        settings=Settings(
            device="cpu",
            seed=runs.seed,
            cache_dir=runs.folder / "cache",
            validation_share=runs.validation_share,
        ),
    ):
        if result.val_dice:
            point = curve_point(name, result.step, result.seconds, result.val_dice)
            record["points"].append(point)
            runs.keep(name, record)
    package = ModelPackage.load(out_dir / "package")
    evaluated = score_cases(
        Predictor(package, device="cpu", engine="torch"),
        runs.manifest,
        runs.manifest.split(0)[1],
        out_dir=out_dir / "predictions",
    )
    by_label = evaluated.table.groupby("label")["dice"].mean()
    large = evaluated.table.groupby("label")["volume_reference_ml"].transform("mean") > 1.0
    record |= {
        "is_finished": True,
        "parameters": sum(value.numel() for value in package.build().parameters()),
        "steps": record["points"][-1]["step"],
        "delivered_dice": {str(label): round(float(x), 4) for label, x in by_label.items()},
        "delivered_mean_dice": round(float(evaluated.table["dice"].mean()), 4),
        "delivered_above_1_ml": round(float(evaluated.table["dice"][large].mean()), 4),
        "labels_above_1_ml": int(evaluated.table["label"][large].nunique()),
        "all_cpu_seconds": round(time.process_time() - began, 1),
        "all_wall_seconds": round(time.monotonic() - wall, 1),
    }
    print(f"{name}: delivered Dice {record['delivered_mean_dice']:.4f}", flush=True)
    return runs.keep(name, record)


def train_peer(runs: Runs) -> Record:
    """A plain MONAI loop with every prepared case in memory."""
    training, held_out = runs.cases(held_out=False), runs.cases(held_out=True)
    torch.manual_seed(runs.seed)
    crop = Compose(
        [
            SpatialPadd(keys=("image", "label"), spatial_size=PEER_PATCH),
            RandSpatialCropd(keys=("image", "label"), roi_size=PEER_PATCH, random_size=False),
        ]
    ).set_random_state(seed=runs.seed)
    pool = [{"image": case.image, "label": case.label[None]} for case in training]
    order = np.random.default_rng(runs.seed)
    classes = runs.plan.num_classes
    network = BasicUNet(spatial_dims=3, in_channels=1, out_channels=classes, features=PEER_FEATURES)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    record: Record = {
        "is_finished": False,
        "network": f"BasicUNet, features {PEER_FEATURES}",
        "recipe": f"DiceCELoss, AdamW 3e-3 (constant), batch 2, patches {PEER_PATCH}",
        "parameters": sum(value.numel() for value in network.parameters()),
        "points": [],
    }
    points: list[Record] = record["points"]
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
        if clock() >= runs.cpu_seconds * (len(points) + 1) / PEER_POINTS:
            with clock.paused():
                dice = peer_dice(network, held_out, [item.name for item in runs.plan.labels])
            points.append(curve_point(PEER, step, clock(), dice))
            runs.keep(PEER, record)
    return runs.keep(PEER, record | {"is_finished": True, "steps": step})


@torch.inference_mode()
def peer_dice(
    network: torch.nn.Module, cases: list[TrainingCase], names: list[str]
) -> dict[str, float]:
    """Mean Dice of each label by MONAI's own window loop, which pads as the peer's crops do."""
    network.eval()
    scores: dict[str, list[float]] = {name: [] for name in names}
    for case in cases:
        logits = sliding_window_inference(case.image[None], PEER_PATCH, 2, network, overlap=0.5)
        predicted = logits[0].argmax(dim=0)
        for index, name in enumerate(names, start=1):
            found, wanted = predicted == index, case.label == index
            total = int(found.sum()) + int(wanted.sum())
            if total:
                scores[name].append(2.0 * int((found & wanted).sum()) / total)
    return {name: statistics.fmean(values) for name, values in scores.items() if values}


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
