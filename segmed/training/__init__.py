"""Training: one explicit loop under one recipe for every architecture.

`fit` yields an `EpochResult` after each epoch and leaves checkpoints and a package behind.
"""

from segmed.training.budget import Budget
from segmed.training.device import Device, choose_device
from segmed.training.loop import fit
from segmed.training.settings import EpochResult, Settings

__all__ = ["Budget", "Device", "EpochResult", "Settings", "choose_device", "fit"]
