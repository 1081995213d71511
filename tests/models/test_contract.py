"""Contract of every registered model, in 2D and 3D: registering a model is testing it."""

import copy
import itertools
from functools import partial

import contract
import pytest
import torch
from contract import SIZES, image
from torch import nn

from segmed.errors import ModelError, UsageError
from segmed.losses import make_loss
from segmed.models import build_model, list_models
from segmed.models.resize import resize_linear

NARROW = (4, 6, 8, 10)
"""Widths of the planned forms under test: behaviour does not depend on them."""


def planned(name, dims, **options):
    torch.manual_seed(0)
    return build_model(
        name,
        spatial_dims=dims,
        in_channels=2,
        num_classes=3,
        **{"widths": NARROW, **({"aspp_width": 8} if name == "deeplabv3plus" else {}), **options},
    )


every_model = pytest.mark.parametrize(
    ("name", "dims"), list(itertools.product(list_models(), (2, 3)))
)


@every_model
def test_logits_lie_on_the_input_grid(name, dims):
    contract.has_logits_on_the_input_grid(partial(planned, name), dims)


@every_model
@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_every_parameter_gets_a_gradient_at_batch_one(name, dims, norm):
    contract.gives_every_parameter_a_gradient(partial(planned, name, norm=norm), dims)


@every_model
def test_deep_supervision_lists_logits_on_the_input_grid_in_training_only(name, dims):
    model = planned(name, dims, deep_supervision=True)
    heads = model.train()(image(dims))
    assert isinstance(heads, list)
    assert {head.shape for head in heads} == {(1, 3, *SIZES[dims])}
    torch.stack(heads).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert isinstance(model.eval()(image(dims)), torch.Tensor)


DIVISIBLE = {2: (32, 48), 3: (16, 32, 16)}
"""Multiples of the total stride of four levels."""


@every_model
def test_coarser_heads_stay_on_their_own_grids_where_these_divide_the_image(name, dims):
    size = DIVISIBLE[dims]
    model = planned(name, dims, deep_supervision=True)
    heads = model.train()(image(dims, size=size))
    steps = [tuple(n // m for n, m in zip(size, h.shape[2:], strict=True)) for h in heads]
    assert steps[0] == (1,) * dims
    assert set(steps) <= set(model.level_strides)
    assert steps == sorted(steps)
    if name not in ("unetpp", "fcn32s"):  # heads of one grid, and one head
        assert len(set(steps)) > 1
    loss = make_loss("dice_ce", num_classes=3)
    loss(heads, torch.zeros(1, *size, dtype=torch.long)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@every_model
def test_heads_on_own_grids_are_those_on_the_input_grid_before_enlarging(name, dims):
    size = DIVISIBLE[dims]
    own = planned(name, dims, deep_supervision=True).train()
    enlarged = planned(name, dims, deep_supervision=True, head_grid="input").train()
    enlarged.load_state_dict(own.state_dict())
    picture = image(dims, size=size)
    for small, large in zip(own(picture), enlarged(picture), strict=True):
        assert large.shape[2:] == size
        assert torch.allclose(resize_linear(small, size), large, atol=1e-5)


@every_model
def test_eval_is_deterministic(name, dims):
    contract.is_deterministic_in_evaluation(partial(planned, name, dropout=0.3), dims)


@every_model
def test_save_and_load_give_equal_logits(name, dims, tmp_path):
    build = partial(planned, name, norm="batch")
    contract.gives_equal_logits_after_save_and_load(build, dims, tmp_path)


@every_model
@pytest.mark.parametrize("preset", [None, "paper"])
def test_no_tensor_is_saved_twice(name, dims, preset):
    with torch.device("meta"):
        model = build_model(name, spatial_dims=dims, in_channels=1, num_classes=2, preset=preset)
    contract.saves_no_tensor_twice(model)


@every_model
@pytest.mark.parametrize("side", [1, 5, 8, 23])
def test_odd_and_tiny_sizes_keep_their_size(name, dims, side):
    contract.keeps_the_size(partial(planned, name), dims, side)


@every_model
def test_anisotropic_plans_are_followed(name, dims):
    flat, full = (1,) + (3,) * (dims - 1), (3,) * dims
    step = (1,) + (2,) * (dims - 1)
    model = planned(
        name,
        dims,
        strides=[(1,) * dims, step, (2,) * dims, (2,) * dims],
        kernels=[flat, flat, full, full],
    )
    logits = model(image(dims))
    assert logits.shape[2:] == SIZES[dims]
    logits.sum().backward()


@every_model
@pytest.mark.parametrize("levels", [2, 3, 5])
def test_levels_come_from_the_plan(name, dims, levels):
    widths = tuple(range(4, 4 + levels))
    assert planned(name, dims, widths=widths)(image(dims)).shape[2:] == SIZES[dims]


@every_model
def test_convolutions_start_as_he_has_them(name, dims):
    model = planned(name, dims, widths=(8, 16, 32, 64))
    convs = [
        module
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.Conv3d) and module.weight.numel() > 2000
    ]
    assert convs
    for conv in convs:
        expected = (2 / conv.weight[0].numel()) ** 0.5
        assert conv.weight.std().item() == pytest.approx(expected, rel=0.1)


@every_model
def test_a_wrong_number_of_channels_is_refused(name, dims):
    contract.refuses_another_number_of_channels(partial(planned, name), dims)


@every_model
def test_options_are_not_changed_by_building(name, dims):
    options = {"widths": [4, 6, 8], "strides": [1, 2, 2], "kernels": [3, 3, 3]}
    before = copy.deepcopy(options)
    planned(name, dims, **options)
    assert options == before


@pytest.mark.parametrize("name", list_models())
def test_contradictions_are_refused_at_build_time(name):
    def build(**options):
        build_model(name, spatial_dims=2, in_channels=1, num_classes=2, **options)

    with pytest.raises(ModelError, match="one entry a level"):
        build(widths=(4, 8), strides=(1, 2, 2))
    with pytest.raises(ModelError, match="unknown norm 'layer'"):
        build(norm="layer")
    with pytest.raises(ModelError, match="odd"):
        build(widths=(4, 8), kernels=(3, 2))
    with pytest.raises(ModelError, match=r"strides\[0\]"):
        build(widths=(4, 8), strides=(2, 2))
    with pytest.raises(ModelError, match="preset"):
        build(preset="nature")
    with pytest.raises(UsageError, match="unknown option"):
        build(width=4)


def test_an_unknown_model_lists_the_known_ones():
    with pytest.raises(UsageError, match="deeplabv3plus, fcn16s"):
        build_model("unett", spatial_dims=2, in_channels=1, num_classes=2)


def test_the_seven_names_are_known():
    assert list_models() == (
        "fcn32s",
        "fcn16s",
        "fcn8s",
        "unet",
        "unetpp",
        "unet3plus",
        "deeplabv3plus",
    )
