"""Labels are brought down to the grids of coarser heads."""

from __future__ import annotations

import pytest
import torch

from segmed.errors import UsageError
from segmed.losses import list_losses, make_loss
from segmed.losses.deep_supervision import bring_down


def test_the_middle_voxel_of_each_block_is_taken() -> None:
    labels = torch.arange(12).view(1, 12)
    assert bring_down(labels, (12,)).tolist() == [list(range(12))]
    assert bring_down(labels, (6,)).tolist() == [[1, 3, 5, 7, 9, 11]]
    assert bring_down(labels, (4,)).tolist() == [[1, 4, 7, 10]]
    assert bring_down(labels, (3,)).tolist() == [[2, 6, 10]]


@pytest.mark.parametrize("step", [(2, 2, 2), (1, 2, 4), (1, 1, 1), (4, 1, 3)])
def test_labels_are_those_of_nearest_neighbour(step: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 9, (2, 8, 12, 12))
    size = [n // s for n, s in zip(labels.shape[1:], step, strict=True)]
    expected = torch.nn.functional.interpolate(
        labels[:, None].float(), size=size, mode="nearest-exact"
    )
    assert torch.equal(bring_down(labels, size), expected[:, 0].long())


def test_leading_axes_are_kept() -> None:
    regions = torch.rand(2, 3, 8, 8) > 0.5
    assert torch.equal(bring_down(regions, (4, 4)), regions[..., 1::2, 1::2])


@pytest.mark.parametrize("size", [(3, 4), (5, 8), (16, 8)])
def test_a_grid_that_does_not_divide_the_labels_is_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="whole number of voxels"):
        bring_down(torch.zeros(1, 8, 8, dtype=torch.long), size)


@pytest.mark.parametrize("name", list_losses())
def test_every_loss_takes_heads_on_coarser_grids(name: str) -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (2, 32, 32))
    heads = [torch.randn(2, 3, n, n, requires_grad=True) for n in (32, 16, 8, 4, 2)]
    loss = make_loss(name, num_classes=3)(heads, labels)
    loss.backward()
    assert loss.isfinite()
    assert all(head.grad is not None and head.grad.isfinite().all() for head in heads)


def test_each_head_is_compared_with_labels_of_its_own_grid() -> None:
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[:, 4:] = 1
    perfect = [
        20.0 * torch.nn.functional.one_hot(bring_down(labels, (n, n)), 2).movedim(-1, 1).float()
        for n in (8, 4, 2)
    ]
    loss = make_loss("dice_ce", num_classes=2)
    assert loss(perfect, labels).item() == pytest.approx(0.0, abs=1e-4)
    assert loss([*perfect[:2], perfect[2].flip(2)], labels).item() > 1.0
