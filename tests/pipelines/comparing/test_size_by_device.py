"""Size and memory of a plan follow the device where they are not named."""

from __future__ import annotations

import pytest
import torch

from pipelines.comparing import resources
from segmed.errors import UsageError
from segmed.manifest import read_manifest
from segmed.plan.make import make_plan
from segmed.training.device import Device
from segmed.training.memory import estimate_step_bytes


@pytest.mark.parametrize(
    ("named", "device", "expected"),
    [(None, "cpu", "small"), ("full", "cpu", "full"), ("small", "cpu", "small")],
)
def test_named_size_wins_and_a_cpu_takes_small_networks(
    named: str | None, device: str, expected: str
) -> None:
    assert resources.size_for(named, device) == expected
    assert resources.memory_for(device) is None


def test_unknown_sizes_and_absent_devices_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown size 'huge': known are full, residual, small"):
        resources.size_for("huge", "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="finds no GPU"):
            resources.size_for(None, "cuda")


@pytest.mark.gpu
def test_a_gpu_takes_full_networks_and_most_of_its_memory() -> None:
    assert resources.size_for(None, "auto") == "full"
    total = torch.cuda.get_device_properties(0).total_memory / 1e9
    assert resources.memory_for("cuda") == pytest.approx(0.8 * total, abs=0.1)


def test_autocast_is_foreseen(sample_manifest_path) -> None:
    plan = make_plan(read_manifest(sample_manifest_path))
    where = torch.device("cuda", 0)
    wide, half = (
        estimate_step_bytes("fcn8s", plan, batch_size=8, device=Device(where, dtype, "a GPU"))
        for dtype in (None, torch.bfloat16)
    )
    assert wide != half  # norms in 32 bits beside convolutions in 16
