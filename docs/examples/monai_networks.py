"""SegResNet and SwinUNETR of MONAI as architectures of segmed.

Import this module in a script or a notebook. For the command line, install it (`pip install
docs/examples`): its `pyproject.toml` announces both names.
"""

from __future__ import annotations

from typing import Any

from monai.networks.nets import SegResNet, SwinUNETR
from torch import nn

import segmed
from segmed.architectures import PlannedInput


def segresnet(
    *, spatial_dims: int, in_channels: int, num_classes: int, **options: Any
) -> nn.Module:
    """Encoder and decoder of residual blocks; each level halves all axes."""
    return SegResNet(
        spatial_dims=spatial_dims, in_channels=in_channels, out_channels=num_classes, **options
    )


def plan_segresnet(planned: PlannedInput) -> dict[str, Any]:
    """Features by the size of the planned networks."""
    return {
        "init_filters": {"small": 8, "full": 32}[planned.size],
        "blocks_down": [1, 2, 2, 4],
        "blocks_up": [1, 1, 1],
    }


def swin_unetr(
    *, spatial_dims: int, in_channels: int, num_classes: int, **options: Any
) -> nn.Module:
    """Transformer of shifted windows as encoder, convolutions as decoder; needs `einops`."""
    return SwinUNETR(
        spatial_dims=spatial_dims, in_channels=in_channels, out_channels=num_classes, **options
    )


def plan_swin_unetr(planned: PlannedInput) -> dict[str, Any]:
    """Features by the size of the planned networks; multiples of 12."""
    return {"feature_size": {"small": 12, "full": 48}[planned.size], "use_v2": True}


segmed.register_architecture(
    "segresnet",
    segresnet,
    plan_segresnet,
    size_multiple=8,
    reference="Myronenko 2018, BrainLes, arXiv:1810.11654",
)
segmed.register_architecture(
    "swin_unetr",
    swin_unetr,
    plan_swin_unetr,
    size_multiple=32,
    learning_rate=5e-4,
    reference="Hatamizadeh et al. 2022, BrainLes, arXiv:2201.01266",
)
