"""The network of a package before its weights are put in: single, averaged, or joined of parts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from segmed.models.averaged import AveragedNetworks
from segmed.models.joined import JoinedNetworks, JoinedPart
from segmed.package.card import PackagePart
from segmed.plan import Plan
from segmed.plan.built import planned_network


def untrained_network(
    plan: Plan, forms: Sequence[PackagePart], parts: Sequence[PackagePart]
) -> nn.Module:
    """The network that the tensors of a package belong to; its weights are drawn.

    Args:
        plan: Plan of the package.
        forms: Form of each network, in order.
        parts: The part models, if networks segment different structures; see `PackagePart`.

    Raises:
        ModelError: An architecture cannot be built with its options.
    """
    if any(part.structures is not None for part in parts):
        channels = plan.in_channels
        networks = [
            planned_network(
                plan, form.architecture, form.options, num_classes=1 + (form.structures or 0)
            )
            for form in forms
        ]
        joined = [JoinedPart(part.members, part.view * channels, channels) for part in parts]
        return JoinedNetworks(networks, joined)
    networks = [planned_network(plan, form.architecture, form.options) for form in forms]
    if len(networks) == 1:
        return networks[0]
    return AveragedNetworks(
        networks,
        has_regions=plan.encoding.has_regions,
        of_logits=plan.inference.average == "logits",
    )
