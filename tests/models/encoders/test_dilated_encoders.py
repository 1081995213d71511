"""Encoders whose last stages trade stride for dilation: map sizes, channels, rates."""

import pytest
import torch

from segmed.models import build_model


def encoder(backbone, output_stride=16):
    torch.manual_seed(0)
    return build_model(
        "deeplabv3plus",
        spatial_dims=2,
        in_channels=1,
        num_classes=2,
        preset="paper",
        backbone=backbone,
        output_stride=output_stride,
        width_factor=0.06,
        aspp_width=8,
    ).encoder


@pytest.mark.parametrize(
    "backbone", ["resnet18", "resnet34", "resnet50", "resnet101", "xception65"]
)
@pytest.mark.parametrize(("output_stride", "side"), [(16, 8), (8, 16)])
def test_feature_and_low_level_maps_at_128(backbone, output_stride, side):
    model = encoder(backbone, output_stride).eval()
    with torch.no_grad():
        maps = model(torch.randn(1, 1, 128, 128))
    assert maps[-1].shape[2:] == (side, side)
    assert maps[model.low_level].shape[2:] == (32, 32)
    assert [m.shape[1] for m in maps] == list(model.channels)
    assert [(128 // m.shape[2],) * 2 for m in maps] == list(model.strides)


def dilations(stage):
    return [block.conv2.dilation[0] for block in stage]


def test_a_unit_that_would_have_strided_keeps_the_rate_before():
    at_16 = encoder("resnet50")
    assert dilations(at_16.layer4) == [1, 2, 2]
    assert dilations(at_16.layer3) == [1] * 6
    at_8 = encoder("resnet50", output_stride=8)
    assert dilations(at_8.layer3) == [1, 2, 2, 2, 2, 2]
    assert dilations(at_8.layer4) == [2, 4, 4]
