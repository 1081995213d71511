"""Engines: what runs a network on a batch of windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from segmed.errors import UsageError
from segmed.models.fast_kernels import is_slow_alone
from segmed.plan.schema import Plan

Activation = Callable[[Tensor], Tensor]
"""From logits `[B, K, *window]` to what is averaged: probabilities, or the logits themselves."""


def softmax(logits: Tensor) -> Tensor:
    """Probabilities of classes of which each voxel has one."""
    return torch.softmax(logits, dim=1)


def unchanged(logits: Tensor) -> Tensor:
    """Logits, for plans that average them."""
    return logits


def activation_of(plan: Plan) -> Activation:
    """From logits to what the plan averages over windows, mirror images and members."""
    if plan.inference.average == "logits":
        return unchanged
    return plan.encoding.probabilities


def value_scale(values: Tensor) -> float:
    """Largest magnitude of a map, at least 1: differences of logits are relative to it."""
    return max(1.0, float(values.abs().max()))


class Engine(Protocol):
    """Runs one network; made once, called for every batch of windows.

    Attributes:
        device: Where it runs.
        streams: Threads that may call it at once.
    """

    @property
    def name(self) -> str:
        """Name, such as `torch`."""
        ...

    device: torch.device
    streams: int

    def __call__(self, windows: Tensor) -> Tensor:
        """Maps `[B, K, *window]` of windows `[B, C, *window]`, float32.

        Class probabilities, or the logits if the plan averages them. They are valid until the next
        call of the same thread.
        """
        ...


class TorchEngine:
    """PyTorch as it is: eager, the reference that every other engine is compared with.

    A small window that comes alone goes with a copy of itself, see `segmed.models.fast_kernels`.

    Args:
        network: The network.
        device: Where it runs.
        name: What the engine is called.
        activation: See `activation_of`.
    """

    streams = 1

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        name: str = "torch",
        *,
        activation: Activation = softmax,
    ) -> None:
        self.name = name
        self.activation = activation
        self.device = device
        self.network = network.to(device).eval()

    def __call__(self, windows: Tensor) -> Tensor:
        """Maps `[B, K, *window]` of windows `[B, C, *window]`, float32."""
        windows = windows.to(self.device)
        count = len(windows)
        if is_slow_alone(windows):
            windows = windows.expand(2, *windows.shape[1:])
        with torch.inference_mode():
            return self.activation(self.network(windows)[:count].float())


def resolve_device(device: str) -> torch.device:
    """The device of a name; `auto` is CUDA where there is one, else the CPU.

    Raises:
        UsageError: The name is unknown, or the device is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"unknown device {device!r}: give auto, cpu or cuda") from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"device {device!r} does not exist: PyTorch finds no GPU; give cpu or auto"
        )
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UsageError(
            f"device {device!r} does not exist: PyTorch finds {count} GPUs, from cuda:0"
        )
    if resolved.type not in ("cpu", "cuda"):
        raise UsageError(f"device {device!r} is not supported: give auto, cpu or cuda")
    return resolved
