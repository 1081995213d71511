"""The findings of a check on a GPU: printed at once, kept for a JSON file."""

from __future__ import annotations

import contextlib
import json
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch


@dataclass
class Check:
    """One run of the check.

    Attributes:
        device: Where it runs.
        is_tiny: Small patches and few steps, to try the check itself on a CPU.
        data: Folder of the hippocampus set (MSD).
        atrium: Folder of the left atrium set (MSD).
        scratch: Folder for caches and models.
        seconds: Length of each training to Dice.
        found: Findings by name.
        failed: Names of the parts and limits that failed.
        dice: Scores of the held-out cases of hippocampus, once there are any.
    """

    device: torch.device
    is_tiny: bool
    data: Path
    atrium: Path
    scratch: Path
    seconds: float
    found: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    dice: pd.DataFrame | None = None

    def note(self, name: str, value: Any, limit: float | None = None) -> None:
        """Print and keep a finding; it fails if it exceeds its limit."""
        self.found[name] = value
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        bound = "" if limit is None else f"limit {limit:g}"
        if limit is not None and not value <= limit:
            self.failed.append(name)
            bound += "  EXCEEDED"
        print(f"{name:72s} {shown:>12s}   {bound}", flush=True)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Run one part; a failure is recorded and the check goes on."""
        begun = time.perf_counter()
        try:
            yield
        except Exception as error:  # noqa: BLE001 - one part must not end the check
            self.failed.append(name)
            self.note(f"{name}: failed", f"{type(error).__name__}: {str(error)[:200]}")
            traceback.print_exc()
        print(f"--- {name}: {time.perf_counter() - begun:.1f} s", flush=True)

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def milliseconds(self, work: Callable[[], object], times: int = 10, warm: int = 3) -> float:
        """Median wall time of a call, each waited for, in ms."""
        for _ in range(warm):
            work()
        self.wait()
        taken = []
        for _ in range(times):
            begun = time.perf_counter()
            work()
            self.wait()
            taken.append(time.perf_counter() - begun)
        return float(np.median(taken)) * 1e3

    def write(self, path: Path) -> None:
        """Write the findings so far."""
        record = {"found": self.found, "failed": self.failed}
        path.write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")
