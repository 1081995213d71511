"""Slab by slab onto the input grid, against the whole-volume computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from inverse_oracle import inverse_probs
from monai.data import MetaTensor
from tiny_data import affine_from
from torch import Tensor

from segmed.preprocessing import Prepared, prepare
from segmed.transforms.inverse import Slab, inverse_boxes

ORIENTATIONS = {
    "RAS": np.diag([1.0, 1, 1, 1]),
    "LPS": np.diag([-1.0, -1, 1, 1]),
    "SLA": np.array([[0.0, -1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]),
    "PIR": np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]),
}


def slabs_of(probs: Tensor, buffer_dim: int, cuts: list[int]) -> list[Slab]:
    ends = [*cuts, probs.shape[1 + buffer_dim]]
    return [
        Slab(low, probs.narrow(1 + buffer_dim, low, high - low))
        for low, high in zip([0, *cuts], ends, strict=True)
    ]


def joined(prepared: Prepared, probs: Tensor, buffer_dim: int, cuts: list[int]) -> Tensor:
    whole = torch.zeros(probs.shape[0], *prepared.grid_in.shape)
    whole[0] = 1.0
    for piece in inverse_boxes(slabs_of(probs, buffer_dim, cuts), prepared.transform, buffer_dim):
        whole[(slice(None), *piece.region)] = piece.probs
    return whole


@pytest.mark.parametrize("name", sorted(ORIENTATIONS))
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (1.7, 0.6, 1.0), (0.8, 1.3, 2.9)])
@pytest.mark.parametrize("buffer_dim", [0, 1, 2])
def test_boxes_equal_the_inverse_of_the_whole_volume(
    make_plan, name: str, spacing_mm: tuple[float, ...], buffer_dim: int
) -> None:
    generator = torch.Generator().manual_seed(3)
    voxels = torch.rand(1, 14, 11, 17, generator=generator)
    voxels[:, :3] = 0  # a margin that the crop takes away
    image = MetaTensor(voxels, affine=torch.from_numpy(ORIENTATIONS[name]))
    plan = make_plan(spacing_mm=spacing_mm, preprocessing={"crop_nonzero": True})
    prepared = prepare(image, plan)
    probs = torch.rand(3, *prepared.tensor.shape[1:], generator=generator)
    size = probs.shape[1 + buffer_dim]
    found = joined(prepared, probs, buffer_dim, sorted({1, size // 2, size - 1} - {0, size}))
    assert torch.equal(found, inverse_probs(probs, prepared))


def test_target_of_a_single_slice_comes_back(make_plan) -> None:
    image = MetaTensor(torch.rand(1, 9, 8, 2), affine=torch.from_numpy(affine_from((1, 1, 1))))
    prepared = prepare(image, make_plan(spacing_mm=(1.0, 1.0, 5.0)))
    assert prepared.tensor.shape[3] == 1
    probs = torch.rand(3, *prepared.tensor.shape[1:])
    assert torch.equal(joined(prepared, probs, 2, []), inverse_probs(probs, prepared))
