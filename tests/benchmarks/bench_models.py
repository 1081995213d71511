"""Time saved and Dice lost by pruning a U-Net++, on real volumes it was not trained on.

Run with `python -m tests.benchmarks.bench_models [--steps N] [--cases N]`. One deeply supervised
U-Net++ is trained on hippocampus; then each way to answer (accurate, fast, pruned to L1..L3) runs
on the validation cases, each time alternating with the others, one thread, CPU seconds. The table
goes to `tests/benchmarks/results/models.json`.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor, nn

from segmed.losses import make_loss
from segmed.models import build_model
from segmed.models.unetpp import UNetPP

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[2] / "shared" / "data" / "hippocampus"
RESULT = HERE / "results" / "models.json"
PATCH = (40, 56, 40)
WIDTHS = (8, 16, 32, 64)
Case = tuple[Tensor, Tensor]


def read_cases() -> tuple[list[Case], list[Case]]:
    """Training and validation cases (every fifth), centred on one grid."""
    cases = []
    for path in sorted((DATA / "imagesTr").glob("hippo*.nii.gz")):
        image = np.asarray(nib.load(path).dataobj, dtype=np.float32)
        label = np.asarray(nib.load(DATA / "labelsTr" / path.name).dataobj).astype(np.int64)
        image = (image - image.mean()) / image.std()
        cases.append((_centred(torch.from_numpy(image)), _centred(torch.from_numpy(label))))
    return [c for i, c in enumerate(cases) if i % 5], cases[::5]


def _centred(volume: Tensor) -> Tensor:
    padding = []
    for n, want in zip(reversed(volume.shape), reversed(PATCH), strict=True):
        padding += [(want - n) // 2, want - n - (want - n) // 2]
    return nn.functional.pad(volume, padding)  # negative widths crop


def train(cases: list[Case], steps: int) -> UNetPP:
    """A deeply supervised U-Net++ after some steps of batch 2."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = build_model(
        "unetpp",
        spatial_dims=3,
        in_channels=1,
        num_classes=3,
        widths=WIDTHS,
        deep_supervision=True,
    ).train()
    loss_of = make_loss("dice_ce", num_classes=3, deep_supervision_weights=(1, 1, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for step in range(steps):
        chosen = [cases[i] for i in rng.integers(len(cases), size=2)]
        image = torch.stack([c[0] for c in chosen])[:, None]
        loss = loss_of(model(image), torch.stack([c[1] for c in chosen]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 25 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    assert isinstance(model, UNetPP)
    return model.eval()


def measure(ways: dict[str, UNetPP], cases: list[Case]) -> dict[str, dict]:
    """Dice of both labels and CPU seconds a case, the ways taking turns."""
    dice: dict[str, list[float]] = {way: [] for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with torch.inference_mode():
        for image, label in cases:
            for way, predict in ways.items():
                begin = time.process_time()
                answer = predict(image[None, None]).argmax(1)[0]
                seconds[way].append(time.process_time() - begin)
                for value in (1, 2):
                    a, b = answer == value, label == value
                    dice[way].append(float(2 * (a & b).sum() / max(1, int(a.sum() + b.sum()))))
    return {
        way: {
            "dice": round(float(np.mean(dice[way])), 4),
            "cpu_seconds_a_case": round(float(np.median(seconds[way])), 4),
        }
        for way in ways
    }


def main() -> None:
    """Train, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--cases", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    training, validation = read_cases()
    begin = time.process_time()
    model = train(training, arguments.steps)
    trained_seconds = time.process_time() - begin
    ways: dict[str, UNetPP] = {
        "accurate": model,
        "fast, L3": model.prune(3),
        "pruned to L2": model.prune(2),
        "pruned to L1": model.prune(1),
    }
    table = measure(ways, validation[: arguments.cases])
    full = table["accurate"]
    for way, row in table.items():
        row["time_saved"] = round(1 - row["cpu_seconds_a_case"] / full["cpu_seconds_a_case"], 3)
        row["dice_lost"] = round(full["dice"] - row["dice"], 4)
        network = ways[way]
        row["parameters"] = sum(p.numel() for p in network.parameters())
        print(f"{way:14s} {row}")
    RESULT.parent.mkdir(exist_ok=True)
    record = {
        "what": "U-Net++ 3D, widths 8..64, hippocampus, one thread",
        "steps": arguments.steps,
        "training_cpu_seconds": round(trained_seconds, 1),
        "validation_cases": min(arguments.cases, len(validation)),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "ways": table,
    }
    RESULT.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
