"""Network plans of the seven architectures for a patch: widths, levels and learning rate.

The figures are settled by running the seven names on one image set under one budget; the evidence
is in `tests/benchmarks/results`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from segmed.architectures import PlannedInput, registered_architecture, registered_names
from segmed.plan.schema import NetworkPlan
from segmed.plan.topology import Topology

Size = Literal["small", "full", "residual"]

BASE_WIDTH: dict[Size, int] = {"small": 16, "full": 32, "residual": 32}
"""Features that the other levels are multiples of."""


@dataclass(frozen=True)
class _Widths:
    """Features of one architecture's levels.

    Attributes:
        finest: Features of the finest level, where most of the time goes.
        base: The level below has twice as many, and so on down.
    """

    finest: int
    base: int

    def of(self, levels: int, most: int, num_labels: int) -> list[int]:
        below = [min(self.base * 2**level, most) for level in range(1, levels)]
        return [self.finest_for(num_labels), *below]

    def finest_for(self, num_labels: int) -> int:
        return self.finest if num_labels < MANY_LABELS else max(self.finest, MANY_LABELS_WIDTH)


MANY_LABELS = 8
"""From this many labels on, a set has many."""

MANY_LABELS_WIDTH = 16
"""Features of the finest level at least where there are many labels: logits are sums of them."""

LEARNING_RATE = 3e-3
"""Peak learning rate of AdamW, found best for one to three labels."""

MANY_LABELS_RATE = 1e-2
"""The same for many labels (brain_many_labels at 6 mm, 300 steps: Dice 0.10 against 0.04)."""

RESIDUAL_BLOCKS = (1, 3, 4, 6, 6, 6)
"""Residual blocks of each level, finest first, as in nnU-Net's ResEnc presets."""

_FULL = {
    "fcn": _Widths(32, 32),
    "unet": _Widths(32, 32),
    "unetpp": _Widths(32, 32),
    "unet3plus": _Widths(32, 32),
    "deeplabv3plus": _Widths(32, 32),
}

WIDTHS: dict[Size, dict[str, _Widths]] = {
    "small": {
        "fcn": _Widths(16, 16),
        "unet": _Widths(8, 16),
        "unetpp": _Widths(8, 8),
        "unet3plus": _Widths(8, 8),
        "deeplabv3plus": _Widths(16, 16),
    },
    "full": _FULL,
    "residual": _FULL,
}
"""`small` widths take about one CPU second a step of two 40x56x40 patches; U-Net++ and UNet 3+ work
at full resolution with several nodes, so theirs are narrower."""

FAMILIES = ("unet", "unetpp", "unet3plus", "deeplabv3plus")
"""Architectures whose names are those of their entries in `WIDTHS`."""

MAX_WIDTH: dict[int, int] = {2: 512, 3: 320}
"""Features at most, by spatial dimensions."""


def planned_widths(
    family: str, size: Size, topology: Topology, spatial_dims: int, num_labels: int
) -> list[int]:
    """Features of each level of one family of architectures, finest first."""
    return WIDTHS[size][family].of(len(topology.strides), MAX_WIDTH[spatial_dims], num_labels)


def planned_rate(size: Size, num_labels: int) -> float:
    """Peak learning rate for so many labels; higher ones are not tried for long trainings."""
    has_many = size == "small" and num_labels >= MANY_LABELS
    return MANY_LABELS_RATE if has_many else LEARNING_RATE


def residual_blocks(size: Size, topology: Topology) -> list[int] | None:
    """Residual blocks of each level of the U-Net family; None for sizes with plain encoders."""
    if size != "residual":
        return None
    levels = len(topology.strides)
    more = RESIDUAL_BLOCKS[-1:] * max(0, levels - len(RESIDUAL_BLOCKS))
    return [*RESIDUAL_BLOCKS[:levels], *more]


def size_of(networks: Mapping[str, NetworkPlan]) -> Size | None:
    """Size of the networks of a plan, by the width of their finest level.

    That of the U-Net decides where there is one: others are narrower where memory is short.

    Args:
        networks: The networks of a plan, by model name.

    Returns:
        The size; None if the widths are those of no size.
    """
    widths = {
        name: network.options["widths"][0]
        for name, network in networks.items()
        if name in FAMILIES and network.options.get("widths")
    }
    widths = {"unet": widths["unet"]} if "unet" in widths else widths
    if any(network.options.get("residual_blocks") for network in networks.values()):
        return "residual"
    for size, planned in WIDTHS.items():
        if widths and all(
            width in (planned[name].finest, planned[name].finest_for(MANY_LABELS))
            for name, width in widths.items()
        ):
            return size
    return None


def plan_networks(
    topology: Topology,
    *,
    patch_size: Sequence[int],
    spacing_mm: Sequence[float],
    size: Size,
    num_labels: int = 1,
) -> dict[str, NetworkPlan]:
    """The build options of every architecture for one topology.

    Args:
        topology: Kernels and strides of each level.
        patch_size: Voxels along each axis, for the rates of atrous convolutions.
        spacing_mm: Voxel edge along each axis, in mm, likewise.
        size: `small` for a CPU or short budgets, `full` for a GPU, `residual` for a GPU and long
            trainings: residual encoders for the U-Net family, deep supervision for all.
        num_labels: Structures to tell apart.

    Returns:
        One entry for each model name.
    """
    base = BASE_WIDTH[size]
    rate = planned_rate(size, num_labels)
    spatial_dims = len(patch_size)
    blocks = residual_blocks(size, topology)
    encoder = {} if blocks is None else {"residual_blocks": blocks}
    family = {} if blocks is None else {**encoder, "decoder_convs": 1}
    supervision = {"deep_supervision": True} if size == "residual" else {}

    def levels(family: str) -> dict[str, Any]:
        return {
            "widths": planned_widths(family, size, topology, spatial_dims, num_labels),
            "kernels": [list(kernel) for kernel in topology.kernels],
            "strides": [list(stride) for stride in topology.strides],
            "norm": "instance",
            "activation": "leaky_relu",
            **supervision,
        }

    fcn = NetworkPlan(options={**levels("fcn"), "head_width": 8 * base}, learning_rate=rate)
    return {
        "fcn32s": fcn,
        "fcn16s": fcn,
        "fcn8s": fcn,
        "unet": NetworkPlan(
            options={**levels("unet"), "upsample": "deconv", **family}, learning_rate=rate
        ),
        "unetpp": NetworkPlan(
            options={**levels("unetpp"), "upsample": "deconv", "deep_supervision": True, **family},
            learning_rate=rate,
        ),
        "unet3plus": NetworkPlan(
            options={
                **levels("unet3plus"),
                "cat_channels": base // 2,
                "deep_supervision": True,
                **encoder,
            },
            learning_rate=rate,
        ),
        "deeplabv3plus": NetworkPlan(
            options={
                **levels("deeplabv3plus"),
                "aspp_width": 4 * base,
                "separable": False,
                "patch_size": list(patch_size),
                "spacing_mm": list(spacing_mm),
            },
            learning_rate=rate,
        ),
    }


def plan_registered(planned: PlannedInput) -> dict[str, NetworkPlan]:
    """The build options of every registered architecture that supports the dimensions.

    Args:
        planned: Input, output and levels of a planned network.

    Returns:
        One entry for each registered name.

    Raises:
        ModelError: A registration cannot be loaded, or its options are not plain values.
    """
    entries = [registered_architecture(name) for name in registered_names()]
    return {
        entry.name: NetworkPlan(
            options=entry.options_for(planned), learning_rate=entry.learning_rate
        )
        for entry in entries
        if entry is not None and planned.spatial_dims in entry.spatial_dims
    }
