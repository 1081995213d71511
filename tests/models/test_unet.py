"""The U-Net: sizes of the valid form, any size in the default form."""

import pytest
import torch

from segmed.errors import ModelError, UsageError
from segmed.models import build_model

NARROW = (4, 6, 8, 10, 12)


def count(**options):
    with torch.device("meta"):
        model = build_model("unet", **options)
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("dims", "in_channels", "options", "expected"),
    [
        (2, 1, {}, 31_030_658),
        (3, 1, {}, 90_292_738),
        (2, 1, {"padding": "same", "norm": "batch"}, 31_036_546),
        (2, 3, {"padding": "same", "norm": "batch"}, 31_037_698),
        (3, 1, {"padding": "same", "norm": "batch"}, 90_298_626),
    ],
)
def test_paper_preset_has_the_published_number_of_parameters(dims, in_channels, options, expected):
    got = count(
        spatial_dims=dims, in_channels=in_channels, num_classes=2, preset="paper", **options
    )
    assert got == expected


def test_valid_unet_turns_572_into_388_and_refuses_190():
    model = build_model(
        "unet", spatial_dims=2, in_channels=1, num_classes=2, preset="paper", widths=NARROW
    ).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 1, 572, 188)).shape == (1, 2, 388, 4)
    with pytest.raises(ModelError, match="188 and 204"):
        model(torch.zeros(1, 1, 190, 188))


@pytest.mark.parametrize("size", [(35, 51, 35), (97, 113), (7, 1)])
def test_default_form_keeps_any_size(size):
    model = build_model(
        "unet", spatial_dims=len(size), in_channels=1, num_classes=3, widths=(4, 4, 4, 4)
    )
    assert model(torch.zeros(1, 1, *size)).shape == (1, 3, *size)


def test_deep_supervision_gives_a_list_in_training_and_one_map_in_eval():
    model = build_model(
        "unet",
        spatial_dims=3,
        in_channels=1,
        num_classes=2,
        widths=(4, 4, 4),
        deep_supervision=True,
    )
    heads = model(torch.randn(1, 1, 9, 10, 11))
    assert [head.shape for head in heads] == [(1, 2, 9, 10, 11)] * 2
    assert model.eval()(torch.randn(1, 1, 9, 10, 11)).shape == (1, 2, 9, 10, 11)


def test_an_unknown_option_lists_the_known_ones():
    with pytest.raises(UsageError, match="kernels"):
        build_model("unet", spatial_dims=2, in_channels=1, num_classes=2, kernel=3)
