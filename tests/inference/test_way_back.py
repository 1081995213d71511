"""Slab by slab onto the input grid, against the whole-volume computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from segmed.geometry import affine_from
from segmed.inference.sliding import Slab
from segmed.inference.way_back import restored_pieces
from segmed.preprocessing import Prepared, prepare, restore_probs

ORIENTATIONS = {
    "RAS": np.diag([1.0, 1, 1, 1]),
    "LPS": np.diag([-1.0, -1, 1, 1]),
    "SLA": np.array([[0.0, -1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]),
    "PIR": np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]),
}


def slabs_of(probs: Tensor, sweep: int, cuts: list[int]) -> list[Slab]:
    ends = [*cuts, probs.shape[1 + sweep]]
    return [
        Slab(low, probs.narrow(1 + sweep, low, high - low))
        for low, high in zip([0, *cuts], ends, strict=True)
    ]


def joined(prepared: Prepared, probs: Tensor, sweep: int, cuts: list[int]) -> Tensor:
    whole = torch.zeros(probs.shape[0], *prepared.grid_in.shape)
    whole[0] = 1.0
    for piece in restored_pieces(slabs_of(probs, sweep, cuts), prepared.placement, sweep):
        whole[(slice(None), *piece.region)] = piece.probs
    return whole


@pytest.mark.parametrize("name", sorted(ORIENTATIONS))
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (1.7, 0.6, 1.0), (0.8, 1.3, 2.9)])
@pytest.mark.parametrize("sweep", [0, 1, 2])
def test_pieces_equal_the_whole_volume_restored_at_once(
    make_plan, name: str, spacing_mm: tuple[float, ...], sweep: int
) -> None:
    generator = torch.Generator().manual_seed(3)
    voxels = torch.rand(1, 14, 11, 17, generator=generator)
    voxels[:, :3] = 0  # a margin that the crop takes away
    image = MetaTensor(voxels, affine=torch.from_numpy(ORIENTATIONS[name]))
    plan = make_plan(spacing_mm=spacing_mm, preprocessing={"crop_nonzero": True})
    prepared = prepare(image, plan)
    probs = torch.rand(3, *prepared.tensor.shape[1:], generator=generator)
    size = probs.shape[1 + sweep]
    found = joined(prepared, probs, sweep, sorted({1, size // 2, size - 1} - {0, size}))
    assert torch.equal(found, restore_probs(probs, prepared))


def test_target_of_a_single_slice_comes_back(make_plan) -> None:
    image = MetaTensor(torch.rand(1, 9, 8, 2), affine=torch.from_numpy(affine_from((1, 1, 1))))
    prepared = prepare(image, make_plan(spacing_mm=(1.0, 1.0, 5.0)))
    assert prepared.tensor.shape[3] == 1
    probs = torch.rand(3, *prepared.tensor.shape[1:])
    assert torch.equal(joined(prepared, probs, 2, []), restore_probs(probs, prepared))
