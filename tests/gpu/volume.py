"""One large volume: 512x512x600 at 0.98x0.98x1 mm, 21 classes, windows of 128 cubed at 1.5 mm."""

from __future__ import annotations

import time

import numpy as np
import torch

from segmed.geometry import Grid
from segmed.inference import Predictor
from segmed.package import ModelPackage
from segmed.transforms.grid_transform import Prepared, resampled, turned
from tests.gpu.cases import hippocampus, large_plan, network_of
from tests.gpu.findings import Check


def run(check: Check, *, compiles: bool) -> None:
    """From the prepared tensor to the label map on the image's grid."""
    _, plan = hippocampus(check)
    plan = large_plan(check, plan, classes=21)
    shape = (64, 64, 80) if check.is_tiny else (512, 512, 600)
    transform = resampled(
        turned(Grid(shape, np.diag([0.977, 0.977, 1.0, 1.0])), "RAS"), (1.5, 1.5, 1.5)
    )
    network = network_of(plan)
    package = ModelPackage("unet", plan.networks["unet"].options, plan, network.state_dict())
    prepared = Prepared(torch.randn(1, *transform.shape), transform)
    name = "x".join(map(str, shape))
    engines = ["auto", "compile"] if compiles and not check.is_tiny else ["auto"]
    for engine in engines:
        with check.part(f"volume, {engine}"):
            predictor = Predictor(package, device=check.device.type, engine=engine)
            for turn in range(2):
                begun = time.perf_counter()
                found = predictor.segment(prepared)
                check.wait()
                taken = time.perf_counter() - begun
                if turn:
                    check.note(f"{name}, 21 classes, {engine}: seconds", taken)
                    for phase, seconds in found.phases.items():
                        check.note(f"  {phase} (host's view), s", seconds)
            if check.device.type == "cuda":
                check.note("  peak GPU memory, GB", torch.cuda.max_memory_allocated() / 1e9)
