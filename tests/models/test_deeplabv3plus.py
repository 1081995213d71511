"""DeepLabv3+: output strides, dilations, ASPP, low-level path, rates that fit."""

import logging

import pytest
import torch

from segmed.errors import ModelError
from segmed.models import build_model
from segmed.models.aspp import dead_rates, scale_rates
from segmed.models.encoders.separable import separable_conv
from segmed.models.options import ConvStyle


def net(dims=2, preset="paper", **options):
    torch.manual_seed(0)
    published = {"width_factor": 0.06, "aspp_width": 8} if preset else {"aspp_width": 8}
    return build_model(
        "deeplabv3plus",
        spatial_dims=dims,
        in_channels=1,
        num_classes=2,
        preset=preset,
        **{**published, **options},
    )


def test_low_level_widths_are_the_papers():
    with torch.device("meta"):
        for backbone in ("resnet101", "xception65"):
            model = net(backbone=backbone, width_factor=1.0, aspp_width=256)
            assert model.encoder.channels[model.encoder.low_level] == 256
            assert model.encoder.channels[-1] == 2048
            assert model.reduce[0].out_channels == 48
            assert model.refine[0][0].in_channels == 304


def test_rates_are_the_papers_at_either_output_stride():
    assert net().rates == ((6, 6), (12, 12), (18, 18))
    assert net(output_stride=8).rates == ((12, 12), (24, 24), (36, 36))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("rate", [1, 2, 3])
def test_an_atrous_branch_touches_exactly_minus_r_0_and_r(dims, rate):
    branch = separable_conv(
        1, 1, kernel=(3,) * dims, dilation=(rate,) * dims, style=ConvStyle(None, None)
    )
    for module in branch.modules():
        if hasattr(module, "weight"):
            torch.nn.init.ones_(module.weight)
    side = 2 * rate + 3
    image = torch.zeros(1, 1, *(side,) * dims, requires_grad=True)
    middle = (side // 2,) * dims
    branch(image)[(0, 0, *middle)].backward()
    touched = image.grad[0, 0].nonzero() - torch.tensor(middle)
    expected = torch.cartesian_prod(*[torch.tensor([-rate, 0, rate])] * dims)
    assert sorted(touched.tolist()) == sorted(expected.tolist())


def test_branches_of_the_net_have_its_rates():
    plain = net().aspp.branches
    assert [branch[0].dilation for branch in plain[1:]] == [(6, 6), (12, 12), (18, 18)]
    assert plain[0][0].kernel_size == (1, 1)
    separable = net(separable=True).aspp.branches
    assert [branch[0].dilation for branch in separable[1:]] == [(6, 6), (12, 12), (18, 18)]
    kinds = [type(layer).__name__ for layer in separable[1]]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 2


def test_rates_beyond_the_feature_map_are_refused_with_rates_that_would_do():
    with pytest.raises(ModelError, match=r"\(18, 18\).*rates such as"):
        net(patch_size=(256, 256), atrous_rates=(6, 12, 18))


def test_rates_are_scaled_to_the_patch_where_the_papers_would_be_dead():
    assert net(patch_size=(513, 513)).rates == ((6, 6), (12, 12), (18, 18))
    scaled = net(patch_size=(256, 256)).rates
    assert scaled == ((3, 3), (6, 6), (9, 9))
    assert dead_rates(scaled, (16, 16)) == ()


def test_rates_are_shorter_along_coarse_and_short_axes():
    rates = scale_rates((6, 12, 18), (33, 33, 12), (1.0, 1.0, 3.0))
    assert rates == ((6, 6, 2), (12, 12, 4), (18, 18, 6))
    assert scale_rates((6, 12, 18), (33, 33, 4), (1, 1, 1))[2] == (18, 18, 3)


def test_planned_form_scales_rates_to_its_patch():
    model = net(3, preset=None, patch_size=(40, 56, 40), spacing_mm=(1, 1, 1))
    assert model.level_strides[-1] == (4, 4, 4)
    assert dead_rates(model.rates, (10, 14, 10)) == ()
    assert model.rates[-1] == (8, 8, 8)


def test_dead_rates_are_told_once_in_training(caplog):
    model = net(backbone="resnet18").train()
    with caplog.at_level(logging.WARNING, logger="segmed"):
        model(torch.randn(1, 1, 64, 64))
        model(torch.randn(1, 1, 64, 64))
    assert len(caplog.records) == 1
    assert "reach beyond" in caplog.text


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "xception65"])
@pytest.mark.parametrize("norm", ["batch", "group", None])
def test_published_backbones_train_at_batch_one(backbone, norm):
    model = net(backbone=backbone, norm=norm, patch_size=(64, 64)).train()
    model(torch.randn(1, 1, 45, 61)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_published_backbones_work_in_3d():
    model = net(3, backbone="resnet18").train()
    logits = model(torch.randn(1, 1, 33, 40, 35))
    assert logits.shape == (1, 2, 33, 40, 35)


def test_separable_is_the_default_of_the_planned_form_in_3d_only():
    groups = {}
    for dims in (2, 3):
        branch = net(dims, preset=None).aspp.branches[1]
        groups[dims] = branch[0].groups
    assert groups[2] == 1
    assert groups[3] > 1


def test_a_published_backbone_refuses_the_levels_of_a_plan():
    with pytest.raises(ModelError, match="width_factor"):
        net(backbone="resnet18", widths=(8, 16))
    with pytest.raises(ModelError, match="output_stride must be 8, 16 or 32"):
        net(output_stride=4)
    with pytest.raises(ModelError, match="known are planned, resnet18"):
        net(backbone="resnet152")
