"""A real network, small and untrained, that archive tests segment with."""

from __future__ import annotations

import torch

from segmed.models import build_model
from segmed.package import ModelPackage
from segmed.plan.schema import (
    Augmentation,
    Inference,
    Intensity,
    NetworkPlan,
    Plan,
    Preprocessing,
    Recipe,
)
from segmed.structures import Channel, Code, LabelClass

LABELS = (
    LabelClass(
        name="anterior",
        value=1,
        code=Code(scheme="SCT", value="279196000", meaning="Head of hippocampus"),
    ),
    LabelClass(
        name="posterior",
        value=2,
        code=Code(scheme="SCT", value="279346002", meaning="Tail of hippocampus"),
    ),
)
OPTIONS = {"widths": [4, 8], "strides": [[1, 1, 1], [2, 2, 2]], "deep_supervision": False}


def tiny_package(
    *, seed: int = 0, channels: int = 1, patch: int = 16, edge_mm: float = 1.0, dims: int = 3
) -> ModelPackage:
    """A U-Net of two levels with weights drawn from a seed, at a cubic spacing."""
    options = {**OPTIONS, "strides": [[1] * dims, [2] * dims]}
    plan = Plan(
        name="tiny",
        spatial_dims=dims,
        channels=tuple(Channel(name=f"c{n}", modality="MR") for n in range(channels)),
        labels=LABELS,
        preprocessing=Preprocessing(
            orientation="RAS" if dims == 3 else "",
            spacing_mm=(edge_mm,) * dims,
            image_order=1,
            intensity=(Intensity(scheme="zscore"),) * channels,
        ),
        patch_size=(patch,) * dims,
        networks={"unet": NetworkPlan(options=options, learning_rate=1e-3)},
        recipe=Recipe(augmentation=Augmentation(rotation_deg=(0.0,))),
        inference=Inference(overlap=0.25),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_model(
            "unet", spatial_dims=dims, in_channels=channels, num_classes=3, **options
        )
    return ModelPackage("unet", options, plan, network.state_dict(), {"note": "untrained"})
