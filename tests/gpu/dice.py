"""Time to Dice on fold 0 of two sets, and the labels of the trained networks against a CPU."""

from __future__ import annotations

import numpy as np
import pandas as pd

from segmed.evaluation import score_cases
from segmed.inference import Predictor
from segmed.io import read_images
from segmed.manifest import Manifest, build_manifest
from segmed.package import ModelPackage
from segmed.plan import Plan
from segmed.training import Budget, Settings, fit
from tests.gpu.cases import hippocampus, planned
from tests.gpu.findings import Check

COMPARED = 12
"""Held-out cases whose labels are computed on the CPU, too."""


def run(check: Check) -> None:
    """Hippocampus: 208 small cases."""
    manifest, plan = hippocampus(check)
    check.dice = time_to_dice(check, "hippocampus", manifest, plan)


def atrium(check: Check) -> None:
    """Left atrium: a few large cases."""
    if not check.atrium.is_dir():
        check.note("left atrium", f"left out: there is no folder {check.atrium}")
        return
    manifest = build_manifest(check.atrium)
    time_to_dice(check, "left atrium", manifest, planned(check, manifest))


def time_to_dice(check: Check, title: str, manifest: Manifest, plan: Plan) -> pd.DataFrame:
    """Train for the check's seconds, score the held-out cases; one row a case and label."""
    out = check.scratch / title
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
            print(*curve[-1], f"loss {result.train_loss:.3f}", result.phases_s, flush=True)
    check.note(f"{title}: steps", result.step)
    check.note(f"{title}: loss of the last epoch", result.train_loss)
    check.note(f"{title}: curve (seconds, step, Dice)", curve)
    package = ModelPackage.load(out / "package")
    held_out = manifest.split(0)[1]
    predictor = Predictor(package, device=check.device.type)
    scored = score_cases(predictor, manifest, held_out, out_dir=out / "predictions")
    check.note(f"{title}: Dice after {check.seconds:.0f} s", float(scored.table["dice"].mean()))
    check.note(f"{title}: seconds a case", scored.seconds_per_case)
    exact = Predictor(package, device="cpu", engine="torch")
    changed = []
    for case in held_out[: 1 if title == "left atrium" else COMPARED]:
        image = read_images(manifest.image_paths(case))
        ours, expected = (p.predict(image).label.as_tensor() for p in (predictor, exact))
        changed.append(float((ours != expected).float().mean()))
    check.note(f"{title}: labels changed against CPU float32", float(np.mean(changed)), 1e-3)
    return scored.table
