"""Freed memory is kept for the next tensors, and goes back where it is missed."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from segmed.models import build_model
from segmed.package import ModelPackage
from segmed.plan import Augmentation, Intensity, Plan, Preprocessing, Recipe
from segmed.structures import Channel, LabelClass

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="this is not GNU's C library"
)

FAULTS = """
import json, resource, sys
import torch
from segmed.freed_memory import keep_freed_memory, release_freed_memory
from segmed.inference.memory import resident_bytes

def faults_of(action):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    action()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
network = torch.nn.Sequential(torch.nn.Conv3d(1, 16, 3, padding=1), torch.nn.LeakyReLU()).eval()
window = torch.randn(2, 1, 64, 64, 64)

def forward():
    with torch.inference_mode():
        network(window)

found = {"kept": keep_freed_memory() if sys.argv[1] == "keep" else None}
for _ in range(3):
    forward()
found["faults"] = faults_of(forward)
full = resident_bytes()
release_freed_memory()
found["released"] = full - resident_bytes()
print(json.dumps(found))
"""


def in_child(mode: str) -> dict[str, Any]:
    """Findings of a process of its own: the setting holds for a whole process."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, mode],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_kept_memory_is_used_again_and_can_be_released() -> None:
    plain, keeping = in_child("plain"), in_child("keep")
    assert keeping["kept"] is True
    assert plain["faults"] > 10_000  # 4 KiB each: activations of 32 MiB, some of them twice
    assert keeping["faults"] < plain["faults"] / 2
    assert keeping["released"] > 2**24 > plain["released"]


PREDICTIONS = """
import json, resource, sys
import numpy as np, torch
from segmed.inference import Predictor

torch.set_num_threads(1)
bound = float(sys.argv[2]) or None
predictor = Predictor.load(sys.argv[1], device="cpu", engine="torch", memory_gb=bound)
image = np.random.default_rng(0).standard_normal((64, 64, 64), dtype=np.float32)
faults = []
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    predictor.predict(image, affine=np.eye(4))
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(json.dumps(faults[-1]))
"""


def test_eager_predictor_keeps_memory_unless_it_is_bounded(tmp_path: Path) -> None:
    plan = Plan(
        name="kept",
        spatial_dims=3,
        channels=(Channel(name="T1", modality="MR"),),
        labels=(LabelClass(name="organ", value=1),),
        preprocessing=Preprocessing(spacing_mm=(1.0,) * 3, intensity=(Intensity(scheme="zscore"),)),
        patch_size=(64, 64, 64),
        networks={},
        recipe=Recipe(augmentation=Augmentation(rotation_deg=(0.0,))),
    )
    options = {"widths": [8, 16], "strides": [[1] * 3, [2] * 3], "kernels": [[3] * 3] * 2}
    network = build_model("unet", spatial_dims=3, in_channels=1, num_classes=2, **options)
    package = ModelPackage("unet", options, plan, network.state_dict())
    package.save(tmp_path / "package")
    faults = {
        bound: int(
            subprocess.run(
                [sys.executable, "-c", PREDICTIONS, tmp_path / "package", str(bound)],
                capture_output=True,
                text=True,
                encoding="utf-8",
                check=True,
            ).stdout
        )
        for bound in (0, 8)
    }
    assert faults[8] > 10_000
    assert faults[0] < faults[8] / 2
