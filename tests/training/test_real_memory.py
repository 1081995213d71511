"""The memory that is foreseen for a training step is that which one takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from segmed.plan.step_memory import TrainedNetwork, step_bytes

SUPERVISED = {"deep_supervision": True}
NETWORKS: dict[str, dict[str, object]] = {
    "unet": {"widths": [8, 32, 64, 128]},
    "unetpp": {"widths": [8, 16, 32, 64], **SUPERVISED},
    "unet3plus": {"widths": [8, 16, 32, 64], "cat_channels": 8, **SUPERVISED},
    "fcn8s": {"widths": [16, 32, 64, 128], "head_width": 128},
    "deeplabv3plus": {"widths": [16, 32, 64, 128], "aspp_width": 64, "patch_size": [64, 64, 64]},
}
PATCH = [64, 64, 64]
DEFAULT = [("unet", 30)]
ALL = [(name, classes) for name in NETWORKS for classes in (3, 30)]


def foreseen(name: str, classes: int) -> int:
    trained = TrainedNetwork(name, NETWORKS[name], "dice_ce", 1, classes, tuple(PATCH))
    return step_bytes(trained, batch_size=2, device="cpu", is_half=False)


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="resident memory is read from Linux's /proc"
)
@pytest.mark.parametrize(
    "cases", [DEFAULT, pytest.param(ALL, marks=pytest.mark.slow)], ids=["one", "all"]
)
def test_foreseen_memory_is_that_of_the_process(cases: list[tuple[str, int]]) -> None:
    script = Path(__file__).with_name("resident_memory.py")
    asked = json.dumps([[name, NETWORKS[name], classes, PATCH] for name, classes in cases])
    run = subprocess.run(
        [sys.executable, str(script), asked], check=True, capture_output=True, text=True
    )
    for (name, classes), real in zip(cases, json.loads(run.stdout), strict=True):
        assert 0.8 < foreseen(name, classes) / real < 1.5, (name, classes, real / 1e6)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_classes_cost_what_the_loss_makes_of_them(name: str) -> None:
    """At least logits, their logarithms, probabilities, and a gradient of these; not ten times."""
    one_class = 2 * 64**3 * 4
    grown = foreseen(name, 30) - foreseen(name, 3)
    assert 3 * 27 * one_class < grown < 20 * 27 * one_class


def test_the_measured_training_on_a_gpu_is_foreseen() -> None:
    """10.84 GB: the U-Net, two patches of 128 cubed in bfloat16 on an H200."""
    options = {"widths": [32, 64, 128, 256, 320, 320]}
    trained = TrainedNetwork("unet", options, "dice_ce", 1, 3, (128, 128, 128))
    need = step_bytes(trained, batch_size=2, device="cuda", is_half=True)
    assert need == pytest.approx(10.84e9, rel=0.05)


def test_a_loss_that_computes_with_values_is_measured_too() -> None:
    trained = TrainedNetwork("unet", {"widths": [8, 16]}, "unet_weighted_ce", 1, 3, (32, 32))
    assert step_bytes(trained, batch_size=1, device="cpu", is_half=False) > 32 * 32 * 8 * 4
