"""Package of a finished training, with its provenance."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from segmed.manifest.schema import Manifest
from segmed.package import ModelPackage
from segmed.package.cascade import with_first_stage
from segmed.package.series_rules import stored_rules
from segmed.package.training_cases import seen_record
from segmed.training.phases import totals
from segmed.training.settings import EpochResult, FirstStage
from segmed.training.trainer import Trainer

PACKAGE = "package"
"""Folder of the package within the folder of a run."""

CURVES = "curves"
"""Key of the training's curves in a package's provenance."""


def packaged(
    trainer: Trainer,
    manifest: Manifest,
    history: Sequence[EpochResult],
    identity: Mapping[str, Any],
    first_stage: FirstStage | None = None,
) -> ModelPackage:
    """The trained network as a package.

    Args:
        trainer: Holds the weights.
        manifest: The image set, for its name and licence.
        history: One result an epoch.
        identity: Architecture, fold, seed, budget, plan and data hash; and what the training cases
            looked like, from `norms_of`, which quality flags and the drift watch read.
        first_stage: What the network refines, where it does.
    """
    last = history[-1] if history else None
    package = ModelPackage(
        architecture=str(identity["architecture"]),
        options=trainer.settings.options,
        plan=trainer.plan,
        state=trainer.final_state(),
        provenance={
            **stored_rules(trainer.plan.channels),
            **identity,
            **seen_record(manifest),
            "data": manifest.name,
            "data_licence": manifest.licence,
            "data_source": manifest.source,
            "epochs": last.epoch if last else 0,
            "steps": last.step if last else 0,
            "seconds": round(last.seconds, 1) if last else 0.0,
            "validation_dice": last.val_dice if last else {},
            CURVES: curves(history),
            "phases_s": totals([result.phases_s for result in history]),
            "peak_memory_mb": round(max((r.peak_memory_mb for r in history), default=0.0), 1),
            "device": trainer.device.why,
            "commit": commit_hash(),
            "versions": versions(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
    if first_stage is None:
        return package
    return with_first_stage(package, ModelPackage.load(first_stage.package))


def curves(history: Sequence[EpochResult]) -> dict[str, list[Any]]:
    """The epochs as columns: step, seconds, losses, learning rate and mean Dice."""
    columns: dict[str, Callable[[EpochResult], float | None]] = {
        "step": lambda result: result.step,
        "seconds": lambda result: result.seconds,
        "learning_rate": lambda result: result.learning_rate,
        "train_loss": lambda result: result.train_loss,
        "val_loss": lambda result: result.val_loss,
        "mean_dice": lambda result: result.mean_dice if result.val_dice else None,
    }

    def short(value: float | None) -> float | None:
        return None if value is None else float(f"{value:.5g}")

    return {name: [short(of(result)) for result in history] for name, of in columns.items()}


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
            encoding="utf-8",
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return answer.stdout.strip() or "unknown"
