"""Training: one explicit loop under one recipe for every architecture.

`train` returns the package; `fit`, the generator below it, yields a result after each epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segmed.lazy import lazy_exports

if TYPE_CHECKING:
    from segmed.training.budget import Budget
    from segmed.training.calls import train
    from segmed.training.device import Device, choose_device
    from segmed.training.loop import fit
    from segmed.training.settings import EpochResult, Settings
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "segmed.training.budget": "Budget",
            "segmed.training.calls": "train",
            "segmed.training.device": "Device choose_device",
            "segmed.training.loop": "fit",
            "segmed.training.settings": "EpochResult Settings",
        },
    )

__all__ = ["Budget", "Device", "EpochResult", "Settings", "choose_device", "fit", "train"]
