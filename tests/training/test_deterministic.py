"""The algorithms that stand in for those without a deterministic gradient give the same values."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from segmed.errors import UsageError
from segmed.losses.dice_ce import gathered_nll
from segmed.models import build_model
from segmed.models.blocks import block_maximum
from segmed.models.resize import _resize_by_matrices
from segmed.training.conditions import chosen_algorithms, require_deterministic, same_bits
from segmed.training.device import Device


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


@pytest.mark.parametrize("ceil_mode", [True, False])
@pytest.mark.parametrize("block", [(2, 2, 2), (1, 2, 3)])
def test_block_maximum_has_value_and_gradient_of_max_pooling(
    block: tuple[int, ...], ceil_mode: bool
) -> None:
    volume = torch.randn(2, 3, 6, 7, 8, requires_grad=True)
    ours = block_maximum(volume, block, ceil_mode=ceil_mode)
    expected = F.max_pool3d(volume, block, stride=block, ceil_mode=ceil_mode)
    torch.testing.assert_close(ours, expected)
    weights = torch.randn_like(expected)
    mine, theirs = (
        torch.autograd.grad((value * weights).sum(), volume)[0] for value in (ours, expected)
    )
    torch.testing.assert_close(mine, theirs)


@pytest.mark.usefixtures("only_deterministic")
def test_overlapping_pools_of_volumes_are_refused_on_a_gpu_and_blocks_are_not() -> None:
    network = partial(build_model, in_channels=1, num_classes=2, preset="paper")
    with torch.device("meta"):
        resnet = network("deeplabv3plus", spatial_dims=3)
        flat = network("deeplabv3plus", spatial_dims=2)
        blocks = network("unet3plus", spatial_dims=3)
    with pytest.raises(UsageError, match="--deterministic cannot be kept for deeplabv3plus in 3D"):
        require_deterministic(resnet, "deeplabv3plus", is_cuda=True)
    for allowed in (flat, blocks):
        require_deterministic(allowed, "a network", is_cuda=True)
    require_deterministic(resnet, "deeplabv3plus", is_cuda=False)


@pytest.mark.parametrize(
    ("name", "same", "is_measured"),
    [("cuda:0", False, True), ("cuda:0", True, False), ("cpu", False, False)],
)
def test_convolutions_are_chosen_by_their_times_on_a_gpu_unless_bits_must_be_the_same(
    name: str, same: bool, is_measured: bool
) -> None:
    device = Device(torch.device(name), None, "")
    assert not torch.backends.cudnn.benchmark
    with chosen_algorithms(device, same=same):
        assert torch.backends.cudnn.benchmark is is_measured
        assert torch.are_deterministic_algorithms_enabled() is same
    assert not torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()
