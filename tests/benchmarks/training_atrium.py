"""`unet` on left_atrium by the default plan, beside a MONAI loop at half resolution."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet
from monai.transforms import Compose, RandFlipd, RandSpatialCropd, SpatialPadd
from torch import Tensor, nn
from torch.nn import functional as F

from segmed.inference import Predictor
from segmed.io import read_image, read_label
from segmed.manifest import Case, Manifest, build_manifest
from segmed.package import ModelPackage
from tests.benchmarks.training_runs import (
    PEER,
    Record,
    Runs,
    Stopwatch,
    curve_point,
    plan_of,
    train_ours,
)

PATCH = (64, 64, 40)
FEATURES = (16, 32, 64, 128, 256, 16)
LEARNING_RATE = 3e-3
POINTS = 2
"""Points of the peer's curve: its validations take as long as many steps."""


@dataclass(frozen=True)
class HalfCase:
    """A case at half resolution, and its label as stored."""

    image: Tensor
    label: Tensor
    whole: Tensor

    @classmethod
    def read(cls, manifest: Manifest, case: Case) -> HalfCase:
        path = manifest.label_path(case)
        assert path is not None
        image = read_image(manifest.image_paths(case)[0]).as_tensor().float()
        whole = read_label(path).as_tensor()
        half = F.interpolate(image[None], scale_factor=0.5, mode="trilinear")[0]
        small = F.interpolate(whole[None].float(), scale_factor=0.5, mode="nearest")[0]
        return cls((half - half.mean()) / half.std(), small, whole[0] > 0)


def train_atrium(source: Path, folder: Path, cpu_seconds: float, seed: int) -> Record:
    """Both learners on the same cases; the seconds of a prediction as `segmed predict` makes it."""
    manifest = build_manifest(source, name="left_atrium")
    plan = plan_of(manifest, cpu_seconds)
    runs = Runs(manifest, plan, folder, cpu_seconds, seed)
    train_half(runs)
    record = train_ours(runs, "unet")
    package = ModelPackage.load(folder / runs.key("unet") / "package")
    predictor = Predictor(package, device="cpu")
    held_out = manifest.split(0)[1]
    predictor.predict(read_image(manifest.image_paths(held_out[0])[0]))  # engines convert once
    begin = time.process_time()
    for case in held_out:
        predictor.predict(read_image(manifest.image_paths(case)[0]))
    taken = (time.process_time() - begin) / len(held_out)
    record["spacing_mm"] = list(plan.preprocessing.spacing_mm)
    return runs.keep("unet", record | {"scores": {"CPU seconds of a prediction": taken}})


def train_half(runs: Runs) -> Record:
    """A plain loop: crops, flips, AdamW with polynomial decay; scored on the images' own grid."""
    training, held_out = (
        [HalfCase.read(runs.manifest, case) for case in cases] for cases in runs.manifest.split(0)
    )
    torch.manual_seed(runs.seed)
    keys = ("image", "label")
    crop = Compose(
        [
            SpatialPadd(keys=keys, spatial_size=PATCH),
            RandSpatialCropd(keys=keys, roi_size=PATCH, random_size=False),
            RandFlipd(keys=keys, prob=0.5, spatial_axis=0),
        ]
    ).set_random_state(seed=runs.seed)
    order = np.random.default_rng(runs.seed)
    network = BasicUNet(spatial_dims=3, in_channels=1, out_channels=2, features=FEATURES)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    record: Record = {
        "is_finished": False,
        "network": f"BasicUNet, features {FEATURES}",
        "recipe": f"half resolution, DiceCELoss, AdamW 3e-3 (poly), batch 2 of {PATCH}, flips",
        "parameters": sum(value.numel() for value in network.parameters()),
        "points": [],
    }
    points: list[Record] = record["points"]
    clock = Stopwatch()
    step = 0
    while len(points) < POINTS:
        network.train()
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * max(1e-3, 1 - clock() / runs.cpu_seconds) ** 0.9
        pool = [training[index] for index in order.integers(len(training), size=2)]
        chosen = [crop({"image": case.image, "label": case.label}) for case in pool]
        optimizer.zero_grad()
        logits = network(torch.stack([item["image"].as_tensor() for item in chosen]))
        loss = loss_of(logits, torch.stack([item["label"].as_tensor() for item in chosen]))
        loss.backward()
        optimizer.step()
        step += 1
        if clock() >= runs.cpu_seconds * (len(points) + 1) / POINTS:
            with clock.paused():
                dice = statistics.fmean(whole_dice(network, case) for case in held_out)
            points.append(curve_point(PEER, step, clock(), {"left_atrium": dice}))
            runs.keep(PEER, record)
    return runs.keep(PEER, record | {"is_finished": True, "steps": step})


@torch.inference_mode()
def whole_dice(network: nn.Module, case: HalfCase) -> float:
    """Dice on the grid as stored, from probabilities brought back."""
    network.eval()
    logits = sliding_window_inference(case.image[None], PATCH, 1, network, 0.5, mode="gaussian")
    probs = F.interpolate(logits.softmax(1)[:, 1:], size=case.whole.shape, mode="trilinear")
    found = probs[0, 0] > 0.5
    return 2.0 * int((found & case.whole).sum()) / int(found.sum() + case.whole.sum())
