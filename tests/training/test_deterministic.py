"""The algorithms that stand in for those without a deterministic gradient give the same values."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional as F

from segmed.errors import UsageError
from segmed.losses.dice_ce import gathered_nll
from segmed.models import build_model
from segmed.models.resize import _resize_by_matrices
from segmed.training.conditions import require_deterministic, same_bits


@pytest.fixture
def only_deterministic() -> Iterator[None]:
    with same_bits(True):
        yield


@pytest.mark.parametrize("shape", [(2, 3, 7, 5), (2, 4, 5, 6, 3)])
def test_gathered_likelihood_has_value_and_gradient_of_the_loss(shape: tuple[int, ...]) -> None:
    logits = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, shape[1], (shape[0], *shape[2:]))
    ours = gathered_nll(logits.log_softmax(1), target)
    expected = F.nll_loss(logits.log_softmax(1), target)
    torch.testing.assert_close(ours, expected)
    mine, theirs = (torch.autograd.grad(value, logits)[0] for value in (ours, expected))
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    ("size", "mode"), [((9, 4), "bilinear"), ((5, 12, 7), "trilinear"), ((6, 6, 20), "trilinear")]
)
def test_resizing_by_matrices_equals_interpolation(size: tuple[int, ...], mode: str) -> None:
    image = torch.randn(2, 3, *[6] * len(size))
    expected = F.interpolate(image, size=size, mode=mode, align_corners=False)
    torch.testing.assert_close(_resize_by_matrices(image, size), expected, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("only_deterministic")
def test_pools_of_volumes_are_refused_on_a_gpu_and_strided_convolutions_are_not() -> None:
    with torch.device("meta"):
        pooled = build_model("fcn8s", spatial_dims=3, in_channels=1, num_classes=2, preset="paper")
        flat = build_model("fcn8s", spatial_dims=2, in_channels=1, num_classes=2, preset="paper")
    with pytest.raises(UsageError, match="--deterministic cannot be kept for fcn8s in 3D"):
        require_deterministic(pooled, "fcn8s", is_cuda=True)
    require_deterministic(pooled, "fcn8s", is_cuda=False)
    require_deterministic(flat, "fcn8s", is_cuda=True)
