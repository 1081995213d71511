"""Faster inference on a processor, accepted by paired scores on held-out cases: int8, windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segmed.lazy import lazy_exports

if TYPE_CHECKING:
    from segmed.acceleration.quantising import Attempt, Quantised, quantise
    from segmed.acceleration.windows import FewerWindows, WindowTrial, fewer_windows
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "segmed.acceleration.quantising": "Attempt Quantised quantise",
            "segmed.acceleration.windows": "FewerWindows WindowTrial fewer_windows",
        },
    )

__all__ = ["Attempt", "FewerWindows", "Quantised", "WindowTrial", "fewer_windows", "quantise"]
