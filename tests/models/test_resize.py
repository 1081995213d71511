"""Resizing, padding and cropping."""

import pytest
import torch
import torch.nn.functional as F

from segmed.models.resize import crop_to, pad_to_multiple, resize_linear


@pytest.mark.parametrize("size", [(10, 14, 10), (7, 9, 20), (3, 7, 5), (5, 7, 11)])
def test_volumes_are_resized_as_pytorch_does_it(size):
    torch.manual_seed(0)
    volume = torch.randn(2, 3, 5, 7, 5, requires_grad=True)
    ours = resize_linear(volume, size)
    theirs = F.interpolate(volume, size=size, mode="trilinear", align_corners=False)
    assert torch.allclose(ours, theirs, atol=1e-5)
    weight = torch.randn_like(theirs)
    (gradient,) = torch.autograd.grad((ours * weight).sum(), volume)
    (expected,) = torch.autograd.grad((theirs * weight).sum(), volume)
    assert torch.allclose(gradient, expected, atol=1e-4)


def test_resizing_in_inference_mode_leaves_training_possible():
    with torch.inference_mode():
        resize_linear(torch.randn(1, 1, 6, 6, 6), (13, 13, 13))
    volume = torch.randn(1, 1, 6, 6, 6, requires_grad=True)
    resize_linear(volume, (13, 13, 13)).sum().backward()
    assert volume.grad is not None


@pytest.mark.parametrize(
    ("size", "expected"), [((16, 16), (16, 16)), ((17, 15), (24, 16)), ((1, 8), (16, 16))]
)
def test_padding_reaches_a_multiple_and_two_coarse_voxels(size, expected):
    image = torch.ones(1, 1, *size)
    padded = pad_to_multiple(image, (8, 8))
    assert padded.shape[2:] == expected
    assert torch.equal(padded[..., : size[0], : size[1]], image)
    assert padded.sum() == image.sum()


def test_an_axis_that_is_not_pooled_is_not_padded():
    assert pad_to_multiple(torch.ones(1, 1, 1, 9), (1, 4)).shape[2:] == (1, 12)


def test_crops_begin_where_told_or_lie_in_the_middle():
    row = torch.arange(10.0).view(1, 1, 10)
    assert crop_to(row, (4,)).flatten().tolist() == [0, 1, 2, 3]
    assert crop_to(row, (4,), 5).flatten().tolist() == [5, 6, 7, 8]
    assert crop_to(row, (4,), None).flatten().tolist() == [3, 4, 5, 6]
