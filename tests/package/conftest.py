"""Fixtures for tests of packages."""

from __future__ import annotations

import pytest

from segmed.plan import Augmentation, Intensity, Plan, Preprocessing, Recipe
from segmed.structures import Channel, LabelClass


@pytest.fixture(scope="module")
def tiny_2d_plan() -> Plan:
    """A plan for images of 16x16, one structure."""
    return Plan(
        name="tiny",
        spatial_dims=2,
        channels=(Channel(name="T1", modality="MR"),),
        labels=(LabelClass(name="head", value=2),),
        preprocessing=Preprocessing(spacing_mm=(1.0, 1.0), intensity=(Intensity(scheme="zscore"),)),
        patch_size=(16, 16),
        networks={},
        recipe=Recipe(augmentation=Augmentation(rotation_deg=(0.0,))),
        reasons={"patch_size": "the median image fits into it"},
    )
