"""Time to Dice on hippocampus fold 0, and the labels of the trained network against a CPU."""

from __future__ import annotations

import numpy as np

from segmed.evaluation import score_cases
from segmed.inference import Predictor
from segmed.io import read_images
from segmed.package import ModelPackage
from segmed.training import Budget, Settings, fit
from tests.gpu.cases import hippocampus
from tests.gpu.findings import Check


def run(check: Check) -> None:
    """Train for the check's seconds, score the held-out cases."""
    manifest, plan = hippocampus(check)
    out = check.scratch / "dice"
    settings = Settings(device=check.device.type, cache_dir=check.scratch / "cache")
    curve = []
    for result in fit(
        manifest,
        plan,
        architecture="unet",
        fold=0,
        budget=Budget(seconds=check.seconds),
        out_dir=out,
        settings=settings,
    ):
        if result.val_dice:
            curve.append((round(result.seconds, 1), result.step, round(result.mean_dice, 4)))
            print(*curve[-1], result.phases_s, flush=True)
    check.note("hippocampus: steps", result.step)
    check.note("hippocampus: curve (seconds, step, Dice)", curve)
    package = ModelPackage.load(out / "package")
    held_out = manifest.split(0)[1]
    predictor = Predictor(package, device=check.device.type)
    scored = score_cases(predictor, manifest, held_out, out_dir=check.scratch / "predictions")
    mean = float(scored.table["dice"].mean())
    check.note(f"hippocampus: Dice after {check.seconds:.0f} s", mean)
    check.note("hippocampus: seconds a case", scored.seconds_per_case)
    exact = Predictor(package, device="cpu", engine="torch")
    changed = []
    for case in held_out[:12]:
        image = read_images(manifest.image_paths(case))
        ours, expected = (p.predict(image).label.as_tensor() for p in (predictor, exact))
        changed.append(float((ours != expected).float().mean()))
    check.note("trained network: labels changed against CPU float32", float(np.mean(changed)), 1e-3)
