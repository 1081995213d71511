"""Residual encoders of the U-Net family: nnU-Net's structure, and the contract of every network."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import contract
import pytest
import torch
from torch import nn

from segmed.errors import ModelError
from segmed.losses import make_loss
from segmed.models import build_model
from segmed.models.residual import VolumeAveragePool

FAMILY = ("unet", "unetpp", "unet3plus")
WIDTHS = (32, 64, 128, 256, 320, 320)
BLOCKS = (1, 3, 4, 6, 6, 6)

RESENC = {3: 102_350_575, 2: 34_532_527}
"""Parameters of `dynamic_network_architectures` 0.4.4's ResidualEncoderUNet, by dimensions: these
widths and blocks, kernels of 3, strides of 2, one convolution a decoder stage, `conv_bias=True`,
instance norm with scale and shift, one channel, three classes, five heads."""


def residual(name: str, dims: int, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_model(
        name,
        spatial_dims=dims,
        in_channels=2,
        num_classes=3,
        **{"widths": (4, 6, 8), "residual_blocks": (1, 2, 2), **options},
    )


def count(name: str, dims: int, **options: Any) -> int:
    with torch.device("meta"):
        model = build_model(
            name,
            spatial_dims=dims,
            in_channels=1,
            num_classes=3,
            widths=WIDTHS,
            residual_blocks=BLOCKS,
            deep_supervision=True,
            **options,
        )
    return sum(parameter.numel() for parameter in model.parameters())


every_member = pytest.mark.parametrize(("name", "dims"), list(itertools.product(FAMILY, (2, 3))))


@pytest.mark.parametrize("dims", [2, 3])
def test_the_unet_has_the_parameters_of_nnunets(dims: int) -> None:
    assert count("unet", dims, conv_bias=True, decoder_convs=1) == RESENC[dims]


@pytest.mark.parametrize(
    ("name", "dims", "parameters"),
    [
        ("unet", 2, 34_519_471),
        ("unet", 3, 102_337_519),
        ("unetpp", 2, 38_650_863),
        ("unetpp", 3, 114_009_647),
        ("unet3plus", 2, 33_376_498),
        ("unet3plus", 3, 99_819_826),
    ],
)
def test_parameters_of_the_planned_form(name: str, dims: int, parameters: int) -> None:
    options = {} if name == "unet3plus" else {"decoder_convs": 1}
    assert count(name, dims, **options) == parameters


def encoder_parameters(dims: int) -> int:
    """Derivation: k w_in w for each convolution, 2 w for each norm, no bias."""
    k, total, before = 3**dims, 0, 1
    for level, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS, strict=True)):
        if level == 0:
            total, before = k * before * width + 2 * width, width
        total += k * before * width + (2 * blocks - 1) * k * width * width + 2 * blocks * 2 * width
        if before != width:
            total += before * width + 2 * width
        before = width
    return total


@pytest.mark.parametrize("dims", [2, 3])
def test_all_members_have_the_same_encoder(dims: int) -> None:
    with torch.device("meta"):
        options = {"widths": WIDTHS, "residual_blocks": BLOCKS}
        build = partial(build_model, spatial_dims=dims, in_channels=1, num_classes=3, **options)
        networks = {name: build(name) for name in FAMILY}
    encoders = {
        "unet": networks["unet"].encoder,
        "unet3plus": networks["unet3plus"].encoder,
        "unetpp": [networks["unetpp"].nodes[f"{level}_0"] for level in range(6)],
    }
    for levels in encoders.values():
        found = sum(p.numel() for level in levels for p in level.parameters())
        assert found == encoder_parameters(dims)


@every_member
def test_the_contract_holds(name: str, dims: int, tmp_path: Path) -> None:
    build = partial(residual, name)
    contract.has_logits_on_the_input_grid(build, dims)
    contract.is_deterministic_in_evaluation(build, dims)
    contract.gives_every_parameter_a_gradient(build, dims)
    contract.gives_equal_logits_after_save_and_load(build, dims, tmp_path)
    contract.saves_no_tensor_twice(build(dims))
    contract.refuses_another_number_of_channels(build, dims)
    for side in (1, 5, 8):
        contract.keeps_the_size(build, dims, side)


@every_member
def test_levels_that_keep_a_coarse_axis_are_followed(name: str, dims: int) -> None:
    flat, full = (1,) + (3,) * (dims - 1), (3,) * dims
    step = (1,) + (2,) * (dims - 1)
    model = residual(
        name, dims, strides=[(1,) * dims, step, (2,) * dims], kernels=[flat, flat, full]
    )
    logits = model.eval()(contract.image(dims))
    assert logits.shape[2:] == contract.SIZES[dims]


@every_member
def test_heads_of_deep_supervision_train(name: str, dims: int) -> None:
    model = residual(name, dims, deep_supervision=True).train()
    size = (16,) * dims
    heads = model(contract.image(dims, size=size))
    make_loss("dice_ce", num_classes=3)(heads, torch.zeros(1, *size, dtype=torch.long)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_pruned_unetpp_equals_its_head() -> None:
    full = residual("unetpp", 2, deep_supervision=True, mode="fast").eval()
    picture = contract.image(2)
    pruned = full.prune(1)
    assert torch.allclose(pruned(picture), full.head_logits(picture)[-1], atol=1e-6)


def test_block_adds_the_pooled_skip_before_the_activation() -> None:
    model = residual("unet", 2, widths=(4, 4, 4))
    unit = model.encoder[1][0]
    for norm in (unit.conv2[1],):
        nn.init.zeros_(norm.weight)  # leaves the skip alone
    x = torch.randn(1, 4, 8, 8)
    pooled = nn.functional.avg_pool2d(x, 2)
    assert torch.allclose(unit(x), nn.functional.leaky_relu(pooled, 0.01), atol=1e-6)
    assert [type(layer) for layer in unit.skip] == [nn.AvgPool2d]
    wider = residual("unet", 3).encoder[1][0].skip
    assert isinstance(wider[0], VolumeAveragePool)
    assert wider[1][0].bias is None


def test_average_of_blocks_is_that_of_the_pooling() -> None:
    volume = torch.randn(2, 3, 4, 6, 8)
    expected = nn.functional.avg_pool3d(volume, (2, 1, 4), (2, 1, 4))
    from segmed.models.blocks import split_in_blocks  # noqa: PLC0415 - used here alone

    assert torch.allclose(split_in_blocks(volume, (2, 1, 4)).mean((3, 5, 7)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"residual_blocks": (1, 2)}, "one entry a level, got 2 for 3"),
        ({"residual_blocks": (1, 0, 1)}, "1 or more for each level"),
        ({"decoder_convs": 0}, "decoder_convs must be 1 or more"),
        ({"padding": "valid"}, "need padding='same'"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        residual("unet", 2, **options)
