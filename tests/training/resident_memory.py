"""Prints the resident memory of the training steps of a network, in bytes.

Run as a process for each network: memory that an earlier one gave back to the allocator is in the
resident memory already.

Usage: resident_memory.py '["unet", {"widths": [8, 16]}, 3, [64, 64, 64]]'
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import psutil
import torch

from segmed.losses import make_loss
from segmed.models import build_model
from segmed.models.fast_kernels import training_format

BATCH = 2


def train(name: str, options: dict[str, object], classes: int, patch: list[int]) -> None:
    """Two steps on noise."""
    network = build_model(
        name, spatial_dims=len(patch), in_channels=1, num_classes=classes, **options
    )
    layout = training_format(len(patch), torch.device("cpu"))
    network.to(memory_format=layout)
    optimizer, loss = (
        torch.optim.AdamW(network.parameters()),
        make_loss("dice_ce", num_classes=classes),
    )
    for _ in range(2):
        image = torch.randn(BATCH, 1, *patch).contiguous(memory_format=layout)
        label = torch.randint(0, classes, (BATCH, *patch))
        value = loss(network.train()(image), label)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()


def largest_resident_bytes() -> int:
    """Largest resident memory since it was last reset."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


torch.set_num_threads(1)
case = json.loads(sys.argv[1])
train(*case[:3], [16] * len(case[3]))  # loads the libraries
gc.collect()
before = psutil.Process().memory_info().rss
Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
train(*case)
print(largest_resident_bytes() - before)
