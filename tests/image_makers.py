"""Small images and plans that transforms and the cache are tried on, as fixtures."""

from __future__ import annotations

from collections.abc import Callable

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from segmed.manifest import Channel, LabelClass
from segmed.plan.schema import Augmentation, Intensity, Plan, Preprocessing, Recipe


@pytest.fixture(scope="session")
def make_plan_for() -> Callable[..., Plan]:
    """Gives a plan with the preprocessing that a test asks for."""

    def make(
        *,
        channels: int = 1,
        scheme: Intensity | None = None,
        values: tuple[int, ...] = (1, 2),
        **preprocessing: object,
    ) -> Plan:
        rule = scheme or Intensity(scheme="ct", mean=0.0, std=1.0)
        rules = {"spacing_mm": (1.0, 1.0, 1.0), "intensity": (rule,) * channels, **preprocessing}
        dims = len(rules["spacing_mm"])
        return Plan(
            name="tried",
            spatial_dims=2 if dims == 2 else 3,
            channels=tuple(Channel(name=f"c{n}", modality="MR") for n in range(channels)),
            labels=tuple(LabelClass(name=f"l{value}", value=value) for value in values),
            preprocessing=Preprocessing.model_validate(rules),
            patch_size=(8,) * dims,
            networks={},
            recipe=Recipe(augmentation=Augmentation(rotation_deg=(0.0,) * (1 if dims == 2 else 3))),
        )

    return make


@pytest.fixture(scope="session")
def make_image() -> Callable[..., MetaTensor]:
    """Gives a random image of a shape, stored in an orientation at a spacing."""

    def make(
        shape: tuple[int, ...],
        *,
        spacing_mm: tuple[float, ...] = (1.0, 1.0, 1.0),
        orientation: str = "RAS",
        channels: int = 1,
        seed: int = 0,
    ) -> MetaTensor:
        voxels = np.random.default_rng(seed).normal(size=(channels, *shape)).astype(np.float32)
        affine = np.eye(4)
        if len(shape) == 3:
            turn = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(orientation), shape)
            affine = np.linalg.inv(turn)
        affine[:3, :3] = affine[:3, :3] @ np.diag([*spacing_mm, 1.0, 1.0][:3])
        affine[:3, 3] = [-12.5, 30.0, 7.0]
        return MetaTensor(torch.from_numpy(voxels), affine=torch.from_numpy(affine))

    return make
