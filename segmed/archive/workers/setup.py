"""Setup message of a worker process, and its answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segmed.archive.writing import Writing


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
