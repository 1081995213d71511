"""The network of a package before its weights are put in: single, averaged, or joined of parts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from segmed.models import build_model
from segmed.models.averaged import AveragedNetworks
from segmed.models.joined import JoinedNetworks, JoinedPart
from segmed.package.card import PackagePart
from segmed.plan import Plan


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
        networks = [_network(plan, form, 1 + (form.structures or 0)) for form in forms]
        joined = [JoinedPart(part.members, part.view * channels, channels) for part in parts]
        return JoinedNetworks(networks, joined)
    networks = [_network(plan, form, plan.num_classes) for form in forms]
    if len(networks) == 1:
        return networks[0]
    return AveragedNetworks(
        networks,
        has_regions=plan.encoding.has_regions,
        of_logits=plan.inference.average == "logits",
    )


def _network(plan: Plan, form: PackagePart, num_classes: int) -> nn.Module:
    return build_model(
        form.architecture,
        spatial_dims=plan.spatial_dims,
        in_channels=plan.in_channels + plan.label_channels,
        num_classes=num_classes,
        has_regions=plan.encoding.has_regions,
        **form.options,
    )
