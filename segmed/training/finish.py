"""What a finished training leaves behind: a package with its provenance."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from segmed.manifest.schema import Manifest
from segmed.package import ModelPackage
from segmed.training.phases import totals
from segmed.training.settings import EpochResult
from segmed.training.trainer import Trainer


def save_package(
    trainer: Trainer,
    manifest: Manifest,
    history: Sequence[EpochResult],
    identity: Mapping[str, Any],
    folder: Path,
) -> ModelPackage:
    """Write the trained network as a package.

    Args:
        trainer: Holds the weights.
        manifest: The image set, for its name and licence.
        history: One result an epoch.
        identity: Architecture, fold, seed, plan and data hash; and what the training cases looked
            like, from `norms_of`, which quality flags and the drift watch read.
        folder: Where the package goes.

    Returns:
        The package.
    """
    last = history[-1] if history else None
    package = ModelPackage(
        architecture=str(identity["architecture"]),
        options=trainer.settings.options,
        plan=trainer.plan,
        state=trainer.final_state(),
        provenance={
            **identity,
            "data": manifest.name,
            "data_licence": manifest.licence,
            "data_source": manifest.source,
            "epochs": last.epoch if last else 0,
            "steps": last.step if last else 0,
            "seconds": round(last.seconds, 1) if last else 0.0,
            "validation_dice": last.val_dice if last else {},
            "phases_s": totals([result.phases_s for result in history]),
            "peak_memory_mb": round(max((r.peak_memory_mb for r in history), default=0.0), 1),
            "device": trainer.device.why,
            "commit": commit_hash(),
            "versions": versions(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
    package.save(folder)
    return package


def versions() -> dict[str, str]:
    """Versions of what took part in a training."""
    names = ("segmed", "torch", "monai", "numpy")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def _version(name: str) -> str:
    if name == "torch":
        return str(torch.__version__)
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed as a package"


def commit_hash() -> str:
    """Git commit of the working folder's segmed, or `unknown` outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],  # noqa: S607 - git from the PATH
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return answer.stdout.strip() or "unknown"
