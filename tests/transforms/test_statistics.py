"""Mean and standard deviation of an image do not depend on how its voxels lie in memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from segmed.transforms.intensity import mean_and_std

WAYS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "as stored": lambda image: image,
    "axes in another order": lambda image: image.permute(0, 3, 1, 2),
    "crop": lambda image: image[:, 3:90, 5:100, 2:70],
    "crop in another order": lambda image: image.permute(0, 2, 3, 1)[:, 5:100, 2:70, 3:90],
    "masked": lambda image: image[image < -100],
    "plane": lambda image: image[:, 40],
    "one voxel": lambda image: image[:, :1, :1, :1],
}


@pytest.mark.parametrize("way", WAYS)
def test_statistics_are_those_in_float64(way: str) -> None:
    generator = torch.Generator().manual_seed(0)
    image = 300.0 * torch.randn((1, 96, 112, 80), generator=generator) - 1000.0
    voxels = WAYS[way](image)
    mean, std = mean_and_std(voxels)
    exact = voxels.double()
    np.testing.assert_allclose(mean, float(exact.mean()), rtol=1e-7)
    np.testing.assert_allclose(std, float(exact.std(correction=0)), rtol=1e-5, atol=1e-9)
