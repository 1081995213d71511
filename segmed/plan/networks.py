"""How each of the seven architectures is built for a patch: widths, levels and learning rate.

The figures are settled by running the seven names on one image set under one budget; the evidence
stands in `tests/benchmarks/results`.
"""

from __future__ import annotations

from typing import Any, Literal

from segmed.plan.schema import NetworkPlan
from segmed.plan.topology import Topology

Size = Literal["small", "full"]

BASE_WIDTH: dict[Size, int] = {"small": 16, "full": 32}
"""Features of the finest level; each level below has twice as many."""

MAX_WIDTH: dict[int, int] = {2: 512, 3: 320}
"""Features at most, by spatial dimensions."""


def plan_networks(topology: Topology, *, spatial_dims: int, size: Size) -> dict[str, NetworkPlan]:
    """The build options of every architecture for one topology.

    Args:
        topology: Kernels and strides of each level.
        spatial_dims: 2 or 3.
        size: `small` for a CPU or short budgets, `full` for a GPU.

    Returns:
        One entry for each model name.
    """
    base = BASE_WIDTH[size]
    widths = [
        min(base * 2**level, MAX_WIDTH[spatial_dims]) for level in range(len(topology.strides))
    ]
    levels: dict[str, Any] = {
        "widths": widths,
        "kernels": [list(kernel) for kernel in topology.kernels],
        "strides": [list(stride) for stride in topology.strides],
        "norm": "instance",
        "activation": "leaky_relu",
    }
    fcn = NetworkPlan(options={**levels, "head_width": 8 * base}, learning_rate=3e-3)
    return {
        "fcn32s": fcn,
        "fcn16s": fcn,
        "fcn8s": fcn,
        "unet": NetworkPlan(options={**levels, "upsample": "deconv"}, learning_rate=3e-3),
        "unetpp": NetworkPlan(
            options={**levels, "upsample": "linear", "deep_supervision": True}, learning_rate=3e-3
        ),
        "unet3plus": NetworkPlan(
            options={**levels, "cat_channels": base, "deep_supervision": True}, learning_rate=3e-3
        ),
        "deeplabv3plus": NetworkPlan(
            options={**levels, "aspp_width": 4 * base, "separable": spatial_dims == 3},
            learning_rate=3e-3,
        ),
    }
