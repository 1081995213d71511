"""Memory forecast of a training step."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from segmed.errors import TrainingError, is_out_of_memory
from segmed.freed_memory import release_freed_memory
from segmed.plan.schema import Plan
from segmed.plan.step_memory import TrainedNetwork, step_bytes
from segmed.training.device import Device


def estimate_step_bytes(
    architecture: str,
    plan: Plan,
    *,
    batch_size: int,
    device: Device,
) -> int:
    """Memory of one training step of a planned network.

    Args:
        architecture: Model name, one of the plan's networks.
        plan: Gives the network's options, patch, channels, classes and recipe.
        batch_size: Patches a step on this device.
        device: Kind and arithmetic of the device.

    Returns:
        Bytes for weights, optimiser, activations, loss and gradients.
    """
    network = plan.networks[architecture]
    return step_bytes(
        TrainedNetwork(
            architecture,
            network.options,
            network.loss,
            plan.network_channels,
            plan.num_classes,
            plan.patch_size,
        ),
        batch_size=batch_size,
        device="cuda" if device.is_cuda else "cpu",
        is_half=device.autocast_dtype is not None,
        is_averaged=plan.recipe.ema_decay > 0,
    )


def free_bytes(device: Device) -> int:
    """Memory that is free on the device now."""
    if device.is_cuda:
        return int(torch.cuda.mem_get_info(device.torch_device)[0])
    release_freed_memory()
    return int(psutil.virtual_memory().available)


def peak_memory_mb(device: Device) -> float:
    """Largest memory so far, in MB: of PyTorch on a GPU, else resident in this process."""
    if device.is_cuda:
        return torch.cuda.max_memory_allocated(device.torch_device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


MARGIN = 0.05
"""Share of the free memory that a training leaves alone."""


def require_memory(need: int, device: Device, plan: Plan, *, batch_size: int) -> float:
    """Refuse a training that would not fit.

    Args:
        need: Bytes of a step, from `estimate_step_bytes`.
        device: Where it is to run; nothing of it is there yet.
        plan: The plan, for what would fit.
        batch_size: Patches a step.

    Returns:
        Bytes that remain beside a step, for the cases.

    Raises:
        TrainingError: The estimate exceeds what is free; the message says what would fit.
    """
    free = free_bytes(device)
    if need > free:
        raise TrainingError(
            f"a step needs about {need / 1e9:.1f} GB on {device.torch_device}, "
            f"{free / 1e9:.1f} GB are free; {_what_fits(free / need, plan, batch_size)}"
        )
    return (1 - MARGIN) * free - need


def _what_fits(share: float, plan: Plan, batch_size: int) -> str:
    if batch_size * share >= 1:
        return f"a batch of {int(batch_size * share)} would fit (recipe.batch_size in the plan)"
    factor = (batch_size * share) ** (1 / len(plan.patch_size))
    smaller = "x".join(str(max(4, int(n * factor))) for n in plan.patch_size)
    return f"a patch of about {smaller} at batch 1 would fit (make a plan with less --memory-gb)"


@contextmanager
def explained_memory_errors(plan: Plan, *, batch_size: int) -> Iterator[None]:
    """Report an allocation that failed as what it is.

    Raises:
        TrainingError: The device or the machine ran out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise _out_of_memory(plan, batch_size) from error
        raise


def _out_of_memory(plan: Plan, batch_size: int) -> TrainingError:
    advice = _what_fits(0.5, plan, batch_size)
    patch = "x".join(map(str, plan.patch_size))
    return TrainingError(f"out of memory with a batch of {batch_size} patches of {patch}; {advice}")
