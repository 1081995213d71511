"""Training: one explicit loop under one recipe for every architecture.

`fit` yields an `EpochResult` after each epoch and leaves checkpoints and a package behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segmed.lazy import lazy_exports

if TYPE_CHECKING:
    from segmed.training.budget import Budget
    from segmed.training.device import Device, choose_device
    from segmed.training.loop import fit
    from segmed.training.settings import EpochResult, Settings
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "segmed.training.budget": "Budget",
            "segmed.training.device": "Device choose_device",
            "segmed.training.loop": "fit",
            "segmed.training.settings": "EpochResult Settings",
        },
    )

__all__ = ["Budget", "Device", "EpochResult", "Settings", "choose_device", "fit"]
