"""One call that trains one architecture on one fold, for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Unpack

from segmed.doors import checked
from segmed.errors import UsageError, unknown_name
from segmed.given import manifest_of, plan_of
from segmed.manifest.schema import Manifest
from segmed.package import ModelPackage
from segmed.plan import Plan
from segmed.training.budget import Budget
from segmed.training.finish import PACKAGE
from segmed.training.loop import fit
from segmed.training.settings import EpochResult, Settings, TrainingOptions


@checked("manifest", "plan", "budget")
def train(
    manifest: Manifest | Path | str,
    plan: Plan | Path | str,
    *,
    architecture: str,
    fold: int,
    budget: str | Budget,
    out: Path | str,
    on_epoch: Callable[[EpochResult], None] | None = None,
    **options: Unpack[TrainingOptions],
) -> ModelPackage:
    """Train one architecture on one fold and return the package.

    Args:
        manifest: The image set, or the path of its manifest.
        plan: The plan made for it, or its path.
        architecture: A built-in architecture such as `unet`, or a registered one.
        fold: Fold whose cases are held out; the others are trained on.
        budget: A duration such as `90s`, `10m`, `2h`, or a `segmed.training.Budget`.
        out: Folder for checkpoints, history and the package.
        on_epoch: Called with the result of each epoch.
        options: Fields of `segmed.training.Settings`, such as `device="cpu"`, `seed=1`,
            `resume=True`.

    Returns:
        The package in `out/package`, with the weights of the last step.

    Raises:
        UsageError: Unknown architecture, fold or option, a budget too short for a few steps, or
            an argument of another type.
        TrainingError: NaN loss, out of memory, full disk, or a checkpoint of another run.
        ManifestError: A case cannot be read.
        KeyboardInterrupt: Interrupted; the checkpoint is saved, `resume=True` continues.
    """
    for name in options.keys() - TrainingOptions.__annotations__.keys():
        raise unknown_name("option of train", name, TrainingOptions.__annotations__)
    folder = Path(out)
    for result in fit(
        manifest_of(manifest),
        plan_of(plan),
        architecture=architecture,
        fold=fold,
        budget=_budget_of(budget),
        out_dir=folder,
        settings=Settings(**options),
    ):
        if on_epoch is not None:
            on_epoch(result)
    return ModelPackage.load(folder / PACKAGE)


def _budget_of(given: str | Budget) -> Budget:
    if isinstance(given, str):
        return Budget.parse(given)
    if not isinstance(given, Budget):
        raise UsageError(
            f"budget is {given!r}: write a duration such as '90s', '10m' or '2h', or "
            "Budget(epochs=20) of segmed.training"
        )
    return given
