"""Memory forecast of a training step."""

from __future__ import annotations

import copy
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from segmed.architectures import BUILT_IN
from segmed.errors import TrainingError, is_out_of_memory
from segmed.models import build_model
from segmed.plan.schema import Plan
from segmed.training.device import Device

GRADIENT_FACTOR = 2.0
"""Activations are kept for the backward pass, and as much again is held by their gradients."""

HALF_FACTOR = 0.6
"""Share of these that autocast to 16 bits leaves: norms keep 32. Measured: 10.8 of 19.4 GB (U-Net,
two patches of 128 cubed, H200)."""

OPTIMIZER_FACTOR = 4.0
"""Weights, gradients and two moments."""


def estimate_step_bytes(
    architecture: str,
    options: Mapping[str, Any],
    plan: Plan,
    *,
    batch_size: int,
    is_half: bool = False,
) -> int:
    """Memory of one training step, from a pass that computes shapes only.

    Args:
        architecture: Model name.
        options: Its build options.
        plan: Gives patch, channels and classes.
        batch_size: Patches a step on this device.
        is_half: Whether the forward pass runs under autocast to 16 bits.

    Returns:
        Bytes for weights, optimiser, activations and their gradients.
    """
    build = partial(
        build_model,
        architecture,
        spatial_dims=plan.spatial_dims,
        in_channels=plan.in_channels,
        num_classes=plan.num_classes,
        **options,
    )
    shape = (batch_size, plan.in_channels, *plan.patch_size)
    if architecture in BUILT_IN:
        with torch.device("meta"):
            network = build()
        activations = _activation_bytes(network, torch.empty(shape, device="meta"))
    else:
        network = build()
        activations = _registered_bytes(network, shape)
    weights = sum(parameter.nbytes for parameter in network.parameters())
    share = HALF_FACTOR if is_half else 1.0
    return int(OPTIMIZER_FACTOR * weights + share * GRADIENT_FACTOR * activations)


def _registered_bytes(network: nn.Module, shape: Sequence[int]) -> int:
    """Bytes of the activations of a user's network.

    It is built with values, since it may compute with them, and measured without them where it can
    be; else by a pass over one patch.
    """
    on_meta = copy.deepcopy(network).to("meta")
    try:
        return _activation_bytes(on_meta, torch.empty(tuple(shape), device="meta"))
    except (RuntimeError, TypeError):  # its forward pass reads values
        with torch.no_grad():
            return shape[0] * _activation_bytes(network, torch.zeros(1, *shape[1:]))


def _activation_bytes(network: nn.Module, patch: Tensor) -> int:
    total = 0

    def count(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal total
        tensors: Sequence[object] = output if isinstance(output, list | tuple) else [output]
        total += sum(item.nbytes for item in tensors if isinstance(item, Tensor))

    leaves = [module for module in network.modules() if not list(module.children())]
    handles = [leaf.register_forward_hook(count) for leaf in leaves]
    try:
        network.train()(patch)
    finally:
        for handle in handles:
            handle.remove()
    return total


def free_bytes(device: Device) -> int:
    """Memory that is free on the device now."""
    if device.is_cuda:
        return int(torch.cuda.mem_get_info(device.torch_device)[0])
    return int(psutil.virtual_memory().available)


def peak_memory_mb(device: Device) -> float:
    """Largest memory so far, in MB: of PyTorch on a GPU, else resident in this process."""
    if device.is_cuda:
        return torch.cuda.max_memory_allocated(device.torch_device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def require_memory(need: int, device: Device, plan: Plan, *, batch_size: int) -> None:
    """Refuse a training that would not fit.

    Raises:
        TrainingError: The estimate exceeds what is free; the message says what would fit.
    """
    free = free_bytes(device)
    if need > free:
        raise TrainingError(
            f"a step needs about {need / 1e9:.1f} GB on {device.torch_device}, "
            f"{free / 1e9:.1f} GB are free; {_what_fits(free / need, plan, batch_size)}"
        )


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
