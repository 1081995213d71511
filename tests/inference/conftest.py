"""Small real networks and their packages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from segmed.models import build_model
from segmed.package import ModelPackage
from segmed.plan import Augmentation, Inference, Intensity, Plan, Preprocessing, Recipe
from segmed.structures import Channel, Code, LabelClass

LABELS = (
    LabelClass(
        name="head", value=2, code=Code(scheme="SCT", value="279196000", meaning="Hippocampus head")
    ),
    LabelClass(
        name="tail", value=5, code=Code(scheme="SCT", value="279346002", meaning="Hippocampus tail")
    ),
)

MakePlan = Callable[..., Plan]
MakePackage = Callable[..., ModelPackage]


def _plan(
    *,
    spatial_dims: int = 3,
    spacing_mm: tuple[float, ...] = (1.0, 1.0, 1.0),
    patch: tuple[int, ...] = (32, 32, 32),
    inference: Inference | None = None,
    **rest: Any,
) -> Plan:
    return Plan(
        name="tiny",
        spatial_dims=spatial_dims,
        channels=(Channel(name="T1", modality="MR"),),
        labels=LABELS,
        preprocessing=Preprocessing(
            spacing_mm=spacing_mm,
            image_order=1,
            intensity=(Intensity(scheme="zscore"),),
            **rest.pop("preprocessing", {}),
        ),
        patch_size=patch,
        networks={},
        recipe=Recipe(augmentation=Augmentation(rotation_deg=(0.0,))),
        inference=inference or Inference(),
        **rest,
    )


def _package(plan: Plan, *, seed: int = 0, architecture: str = "unet") -> ModelPackage:
    dims = plan.spatial_dims
    options = {"widths": [4, 8], "strides": [[1] * dims, [2] * dims]}
    if architecture == "unet3plus":
        options["cat_channels"] = 4
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_model(
            architecture,
            spatial_dims=dims,
            in_channels=plan.in_channels,
            num_classes=plan.num_classes,
            **options,
        )
        with torch.no_grad():  # untrained logits are nearly equal; spread them
            for name, value in network.named_parameters():
                if value.ndim > 1 and name.endswith("weight"):
                    value.mul_(3.0)
    return ModelPackage(architecture, options, plan, network.state_dict(), {"seed": seed})


@pytest.fixture(scope="session")
def make_plan() -> MakePlan:
    """Makes a plan for one MR channel and two structures with the label values 2 and 5."""
    return _plan


@pytest.fixture(scope="session")
def make_package() -> MakePackage:
    """Makes an untrained package for a plan, its weights drawn from a seed."""
    return _package
