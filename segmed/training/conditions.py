"""Preconditions of a training, and its determinism."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from segmed.architectures import registered_names, require_architecture
from segmed.errors import UsageError, unknown_name
from segmed.manifest.schema import Manifest
from segmed.models.blocks import VolumeMaxPool
from segmed.plan.agreement import require_same_channels, require_same_labels
from segmed.plan.schema import Plan
from segmed.training.device import Device
from segmed.training.first_stage import check_first_stage
from segmed.training.settings import FirstStage
from segmed.transforms.extra_augmentation import extra_augmentation


def check_request(
    manifest: Manifest,
    plan: Plan,
    architecture: str,
    fold: int,
    first_stage: FirstStage | None = None,
) -> None:
    """Refuse a training that cannot be meant.

    Raises:
        UsageError: Architecture or fold is unknown, the plan was made for another image set, MONAI
            refuses an argument of its extra augmentation, or a first stage is missing that the plan
            refines.
    """
    require_architecture(architecture)
    if architecture not in plan.networks and architecture in registered_names():
        raise UsageError(
            f"the plan has no network {architecture!r}: it was made before the architecture was "
            f"registered, or for dimensions that it does not support ({plan.spatial_dims}D); make "
            "the plan again"
        )
    if architecture not in plan.networks:
        raise unknown_name("network of this plan", architecture, plan.networks)
    if fold not in manifest.folds:
        known = ", ".join(map(str, manifest.folds)) or "none"
        raise UsageError(f"fold {fold} is not in manifest {manifest.name!r}: its folds are {known}")
    require_same_labels(plan, manifest)
    require_same_channels(plan, manifest)
    extra_augmentation(plan)
    check_first_stage(plan, manifest, first_stage)


@contextmanager
def same_bits(wanted: bool) -> Iterator[None]:
    """Only algorithms that give the same bits each time, for as long as this lasts."""
    if not wanted:
        yield
        return
    # Read by cuBLAS when a process first uses it; without it PyTorch refuses matrix products.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def fastest_convolutions(device: Device) -> Iterator[None]:
    """Let cuDNN choose its algorithms by their measured times, as shapes never change in training.

    Not within `same_bits`, and not on a CPU: the choice may differ from run to run.

    Args:
        device: Device of the training.
    """
    before = torch.backends.cudnn.benchmark
    is_free = not torch.are_deterministic_algorithms_enabled()
    torch.backends.cudnn.benchmark = before or (device.is_cuda and is_free)
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def chosen_algorithms(device: Device, *, same: bool) -> Iterator[None]:
    """Algorithms of a training, for as long as this lasts.

    Args:
        device: Device of the training.
        same: Only those that give the same bits each time; else the fastest.
    """
    with same_bits(same), fastest_convolutions(device):
        yield


def require_deterministic(network: nn.Module, architecture: str, *, is_cuda: bool) -> None:
    """Require that every layer has an algorithm that gives the same bits each time.

    Raises:
        UsageError: On a GPU the network pools volumes by windows that overlap, whose gradient
            PyTorch adds up in any order.
    """
    pools = [module for module in network.modules() if isinstance(module, nn.MaxPool3d)]
    has_pools = not all(isinstance(pool, VolumeMaxPool) and pool.has_blocks for pool in pools)
    if is_cuda and has_pools and torch.are_deterministic_algorithms_enabled():
        raise UsageError(
            f"--deterministic cannot be kept for {architecture} in 3D on a GPU: max pooling by "
            "windows that overlap has no deterministic gradient there; use --device cpu, or leave "
            "it out"
        )
