"""A training of a second: five real cases, a narrow U-Net, small patches, epochs of four steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from segmed.manifest import Manifest, read_manifest
from segmed.package import ModelPackage
from segmed.plan import NetworkPlan, Plan
from segmed.plan.make import make_plan
from segmed.training import Budget, EpochResult, Settings, fit

STEPS_PER_EPOCH = 4


def few_cases(manifest_path: Path) -> Manifest:
    """Three cases of the sample to train on and two held out as fold 0."""
    whole = read_manifest(manifest_path)
    inside, held_out = whole.split(0)
    return whole.model_copy(update={"training": (*inside[:3], *held_out[:2]), "test": ()})


def narrow_plan(manifest: Manifest) -> Plan:
    """The sample's plan with a narrow U-Net, small patches and short epochs."""
    plan = make_plan(manifest)
    options = {**plan.networks["unet"].options, "widths": [4, 8, 8, 8]}
    recipe = plan.recipe.model_copy(
        update={"iterations_per_epoch": STEPS_PER_EPOCH, "ema_decay": 0.9}
    )
    return plan.model_copy(
        update={
            "networks": {"unet": NetworkPlan(options=options, learning_rate=3e-3)},
            "recipe": recipe,
            "patch_size": (16, 24, 16),
        }
    )


def start(
    manifest: Manifest, plan: Plan, out_dir: Path, cache_dir: Path, **choices: Any
) -> Iterator[EpochResult]:
    """A deterministic training on the CPU, two epochs long unless another budget is chosen."""
    budget = choices.pop("budget", Budget(epochs=2))
    fold = choices.pop("fold", 0)
    on_prepared = choices.pop("on_prepared", None)
    settings = Settings(device="cpu", deterministic=True, cache_dir=cache_dir, **choices)
    return fit(
        manifest,
        plan,
        architecture="unet",
        fold=fold,
        budget=budget,
        out_dir=out_dir,
        settings=settings,
        on_prepared=on_prepared,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The packaged weights of a finished training."""
    return dict(ModelPackage.load(folder / "package").state)


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    """Equal to the bit."""
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
