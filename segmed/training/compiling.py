"""Compilation of the network where the time that it saves exceeds the time that it takes.

Measured on an H200 for the full-width U-Net, each step one graph: two patches of 128 cubed take
39.8 ms compiled and 71.7 ms otherwise, those of hippocampus 7.7 and 9.7 ms.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

from segmed.plan.schema import Plan
from segmed.training.budget import Budget
from segmed.training.device import Device
from segmed.training.distributed import ProcessGroup
from segmed.training.trainer import Trainer

log = logging.getLogger(__name__)

SAVED = ((1_000_000, 0.4), (250_000, 0.2))
"""Share of a step's time that compilation saves, from so many voxels of a batch on."""

STEP_NS = 17.0
"""Time of an uncompiled step of a U-Net of 32 features at the finest level, for a voxel of the
batch, in ns, on an H200; other GPUs take longer, and save more."""

COMPILE_S = 120.0
"""About what compiling a U-Net of six levels takes, in s; set, not measured."""

COMPILED_CONVOLUTIONS = 25
"""Convolutions of such a U-Net; more of them take longer in proportion."""

WORTHWHILE = 2.0
"""Compilation must be expected to save this many times its own time."""


@dataclass(frozen=True)
class CompilationChoice:
    """A choice about compilation, and its reason.

    Attributes:
        is_on: Compile the network.
        why: The reason in words.
    """

    is_on: bool
    why: str


def choose_compilation(
    wish: bool | None,
    network: nn.Module,
    plan: Plan,
    *,
    device: Device,
    left_s: float,
) -> CompilationChoice:
    """Decide whether the network is compiled.

    Args:
        wish: What the user asked for; None to decide here.
        network: The network.
        plan: Patch and batch.
        device: Device of the training.
        left_s: Seconds of steps that are still to come, as uncompiled ones.
    """
    if wish is not None:
        return CompilationChoice(wish, "as requested")
    if not device.is_cuda:
        return CompilationChoice(False, "the device is a CPU")
    if torch.are_deterministic_algorithms_enabled():
        return CompilationChoice(False, "--deterministic")
    voxels = plan.recipe.batch_size * prod(plan.patch_size)
    share = next((share for least, share in SAVED if voxels >= least), 0.0)
    if not share:
        return CompilationChoice(False, f"a step of {voxels:,} voxels is too small to gain by it")
    convolutions = sum(isinstance(module, nn.modules.conv._ConvNd) for module in network.modules())
    cost_s = COMPILE_S * max(1.0, convolutions / COMPILED_CONVOLUTIONS)
    gain_s = share * left_s
    words = (
        f"about {gain_s:.0f} of {left_s:.0f} s of steps would be saved, compiling takes about "
        f"{cost_s:.0f} s"
    )
    return CompilationChoice(gain_s >= WORTHWHILE * cost_s, words)


def seconds_left(
    budget: Budget, plan: Plan, options: Mapping[str, Any], *, progress: float, step: int
) -> float:
    """Seconds of uncompiled steps still to come; of a budget in epochs at an H200's speed.

    Args:
        budget: The budget.
        plan: Patch, batch and steps of an epoch.
        options: Build options of the network; their widths scale the work.
        progress: Share of the budget spent.
        step: Steps done.
    """
    if budget.seconds is not None:
        return budget.seconds * max(0.0, 1.0 - progress)
    assert budget.epochs is not None
    finest = float((options.get("widths") or [32])[0])
    voxels = plan.recipe.batch_size * prod(plan.patch_size)
    step_s = STEP_NS * 1e-9 * voxels * finest / 32
    return step_s * max(0, budget.epochs * plan.recipe.iterations_per_epoch - step)


def settle_compilation(
    trainer: Trainer,
    wish: bool | None,
    budget: Budget,
    *,
    progress: float,
    step: int,
    process_group: ProcessGroup,
    backend: str | Any = "inductor",
) -> None:
    """Compile the network of a training before its first step, if that pays.

    All processes do the same. If one of them cannot compile, none does, and the log says why.

    Args:
        trainer: Network and optimiser; unchanged but for the compiled forward pass.
        wish: What the user asked for; None to decide here.
        budget: Budget of the training, of which compiling is a part.
        progress: Share of it that is spent.
        step: Steps done.
        process_group: The processes that train together.
        backend: Compiler of `torch.compile`.
    """
    plan, options = trainer.plan, trainer.settings.options
    left_s = seconds_left(budget, plan, options, progress=progress, step=step)
    choice = choose_compilation(wish, trainer.network, plan, device=trainer.device, left_s=left_s)
    is_on = process_group.agree(float(choice.is_on)) > 0
    if trainer.device.is_cuda or is_on:
        log.info("torch.compile is %s: %s", "used" if is_on else "not used", choice.why)
    if not is_on:
        return
    fault = trainer.compile(backend=backend)
    if process_group.any(bool(fault)):
        trainer.use_uncompiled()
        fault = fault or "it failed in another process"
        log.warning("the network cannot be compiled (%s): training goes on without", fault)
