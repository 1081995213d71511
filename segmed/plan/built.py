"""The network of a plan, built with its input, its output and its options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from segmed.models import build_model
from segmed.models.refining import RefiningNetwork
from segmed.plan.schema import Plan


def planned_network(
    plan: Plan, architecture: str, options: Mapping[str, Any], *, num_classes: int | None = None
) -> nn.Module:
    """A network for the images of a plan; its weights are drawn.

    Args:
        plan: Gives dimensions, channels and classes. Where it refines a first stage, the network is
            a `RefiningNetwork`.
        architecture: Name that `build_model` accepts.
        options: Its keyword options.
        num_classes: Channels of the logits; the plan's where not given, those of its own structures
            for a part model.

    Raises:
        ModelError: The architecture is unknown, or cannot be built with these options.
    """
    network = build_model(
        architecture,
        spatial_dims=plan.spatial_dims,
        in_channels=plan.in_channels + plan.label_channels,
        num_classes=plan.num_classes if num_classes is None else num_classes,
        has_regions=plan.encoding.has_regions,
        **options,
    )
    if not plan.refines:
        return network
    return RefiningNetwork(network, plan.label_channels, has_regions=plan.encoding.has_regions)
