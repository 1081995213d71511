"""Setup message of a worker process, and its answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segmed.archive.writing import Writing

GPU_FAULT_STATUS = 75
"""Exit status of a worker whose GPU failed: EX_TEMPFAIL of sysexits.h."""


@dataclass(frozen=True)
class Setup:
    """Setup of a worker.

    Attributes:
        packages: Folders of the model's packages.
        options: Options of the predictor: device, engine, tta.
        writing: How outputs are written.
    """

    packages: tuple[Path, ...]
    writing: Writing
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ready:
    """A worker's first word: why it cannot work, or nothing."""

    fault: str = ""


def on_device(setup: Setup, device: str) -> Setup:
    """The same for a worker of a device, such as `cuda:1`."""
    return replace(setup, options={**setup.options, "device": device})


def sharing(setup: Setup, workers: int) -> Setup:
    """The same for one of several workers that share the memory of a GPU."""
    if workers <= 1:
        return setup
    return replace(setup, options={**setup.options, "gpu_share": 1.0 / workers})
