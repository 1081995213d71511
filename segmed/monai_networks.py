"""MONAI's own networks as architectures of imported packages, by name from a list."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from segmed.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

PREFIX = "monai-"
"""Beginning of the names of these architectures."""

NETWORKS = (
    "AttentionUnet",
    "BasicUNet",
    "DynUNet",
    "FlexibleUNet",
    "SegResNet",
    "SwinUNETR",
    "UNETR",
    "UNet",
    "VNet",
)
"""Networks of `monai.networks.nets` from images to logits on the same grid."""


def network_of(architecture: str) -> str | None:
    """Return MONAI's name of the network of an architecture; None for other architectures."""
    name = architecture.removeprefix(PREFIX)
    return name if architecture != name and name in NETWORKS else None


def builder_of(network: str) -> Callable[..., nn.Module]:
    """Return the builder of one of `NETWORKS`, with the interface of a registered architecture."""
    return partial(_build, network)


def _build(
    network: str, *, spatial_dims: int, in_channels: int, num_classes: int, **options: Any
) -> nn.Module:
    from monai.networks import nets  # noqa: PLC0415 - all of MONAI, for these networks alone

    if options.get("pretrained"):
        raise ModelError(f"{network} with pretrained=True would download weights; leave it out")
    made: nn.Module = getattr(nets, network)(
        spatial_dims=spatial_dims, in_channels=in_channels, out_channels=num_classes, **options
    )
    return made
