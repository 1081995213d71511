"""Counts, costs and receptive fields, against the papers and closed forms."""

from pathlib import Path

import pytest
import torch

from segmed.errors import ModelError
from segmed.models import build_model, describe_model, list_models
from segmed.models.describe import count_activations, count_macs
from segmed.models.table import all_cards, as_markdown

REPOSITORY = Path(__file__).resolve().parents[2]

DEEPLAB = "deeplabv3plus"


def count(name, dims, in_channels, num_classes, **options):
    with torch.device("meta"):
        model = build_model(
            name,
            spatial_dims=dims,
            in_channels=in_channels,
            num_classes=num_classes,
            preset="paper",
            **options,
        )
    return sum(parameter.numel() for parameter in model.parameters())


BILINEAR = {"norm": "batch", "upsample": "bilinear"}


@pytest.mark.parametrize(
    ("name", "dims", "in_channels", "num_classes", "options", "expected"),
    [
        ("fcn32s", 2, 3, 21, {}, 136_152_917),
        ("fcn16s", 2, 3, 21, {}, 134_815_994),
        ("fcn8s", 2, 3, 21, {}, 134_489_759),
        ("fcn32s", 2, 3, 2, {}, 134_285_122),
        ("fcn16s", 2, 3, 2, {}, 134_273_924),
        ("fcn8s", 2, 3, 2, {}, 134_271_430),
        ("unet", 2, 1, 2, {}, 31_030_658),
        ("unet", 3, 1, 2, {}, 90_292_738),
        ("unet", 2, 1, 2, {"padding": "same", "norm": "batch"}, 31_036_546),
        ("unet", 2, 3, 2, {"padding": "same", "norm": "batch"}, 31_037_698),
        ("unet", 3, 1, 2, {"padding": "same", "norm": "batch"}, 90_298_626),
        ("unetpp", 2, 1, 1, {}, 9_041_601),
        ("unetpp", 2, 1, 1, {"deep_supervision": True}, 9_041_700),
        ("unetpp", 2, 1, 1, BILINEAR, 9_162_753),
        ("unetpp", 2, 3, 1, BILINEAR, 9_163_329),
        ("unetpp", 2, 3, 1, {**BILINEAR, "deep_supervision": True}, 9_163_428),
        ("unetpp", 3, 1, 1, BILINEAR, 27_466_305),
        ("unet3plus", 2, 3, 1, {}, 26_971_777),
        ("unet3plus", 2, 1, 1, {}, 26_970_625),
        ("unet3plus", 3, 1, 1, {}, 80_872_705),
        ("unet3plus", 2, 1, 2, {"deep_supervision": True}, 27_009_226),
        ("unet3plus", 2, 1, 2, {"deep_supervision": True, "cgm": True}, 27_011_276),
        (DEEPLAB, 2, 3, 21, {}, 59_344_309),
        (DEEPLAB, 2, 3, 21, {"output_stride": 8}, 59_344_309),
        (DEEPLAB, 2, 3, 2, {"backbone": "resnet50"}, 40_347_298),
        (DEEPLAB, 3, 1, 2, {"backbone": "resnet50"}, 93_886_370),
        (DEEPLAB, 2, 3, 21, {"backbone": "resnet50", "separable": True}, 26_696_133),
        (DEEPLAB, 2, 3, 21, {"separable": True}, 45_688_261),
        (DEEPLAB, 2, 3, 21, {"backbone": "xception65", "separable": True}, 41_055_413),
    ],
)
def test_published_forms_have_their_number_of_parameters(
    name, dims, in_channels, num_classes, options, expected
):
    assert count(name, dims, in_channels, num_classes, **options) == expected


def test_unet3plus_costs_308_8_gmac_at_320():
    card = describe_model(
        "unet3plus",
        spatial_dims=2,
        in_channels=3,
        num_classes=1,
        preset="paper",
        input_size=(320, 320),
    )
    assert card.macs / 1e9 == pytest.approx(308.8, abs=0.05)
    assert card.num_levels == 5
    assert card.output_stride == (16, 16)


def test_macs_of_a_convolution_and_a_deconvolution_by_hand():
    with torch.device("meta"):
        network = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.ConvTranspose2d(8, 4, 2, 2)
        )
    assert count_macs(network, (1, 3, 10, 10)) == 25 * 8 * 27 + 25 * 8 * 4 * 4


def test_activations_of_two_convolutions_by_hand():
    with torch.device("meta"):
        network = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1)
        )
    # what is kept: the input of either convolution
    assert count_activations(network, (1, 1, 8, 8)) == 4 * (64 + 4 * 64)


@pytest.mark.parametrize(
    ("levels", "expected"),
    # two 3x3 convolutions see 5; every level below adds its own at twice the step
    [(1, 5), (2, 18)],
)
def test_receptive_field_of_a_small_unet(levels, expected):
    card = describe_model(
        "unet", spatial_dims=2, in_channels=1, num_classes=2, widths=(4,) * levels
    )
    if levels == 1:
        assert card.receptive_field == (expected, expected)
    else:  # 2 (pool) + 2*4 (bottom) + 4 + 4 (either side), one more or less by the voxel's phase
        assert card.receptive_field[0] == pytest.approx(expected, abs=2)


def test_receptive_field_follows_anisotropic_plans():
    card = describe_model(
        "unet",
        spatial_dims=3,
        in_channels=1,
        num_classes=2,
        widths=(4, 4),
        strides=(1, (1, 2, 2)),
        kernels=((1, 3, 3), (1, 3, 3)),
    )
    assert card.receptive_field[0] == 1
    assert card.receptive_field[1] == card.receptive_field[2] > 10


def test_deeplab_sees_the_whole_image():
    card = describe_model(DEEPLAB, spatial_dims=2, in_channels=1, num_classes=2)
    assert card.receptive_field == (None, None)
    model = build_model(
        DEEPLAB, spatial_dims=2, in_channels=1, num_classes=2, widths=(2, 2, 2, 2), norm=None
    )
    image = torch.rand(1, 1, 300, 20, requires_grad=True)
    model.eval()(image)[0, 0, 0, 0].backward()
    assert image.grad[0, 0, -20:].abs().sum() > 0


def test_describing_refuses_what_building_refuses():
    with pytest.raises(ModelError, match="cannot take 190"):
        describe_model(
            "unet",
            spatial_dims=2,
            in_channels=1,
            num_classes=2,
            preset="paper",
            input_size=(190, 190),
        )


def test_the_table_of_the_networks_page_is_up_to_date():
    table = as_markdown(all_cards())
    assert len(table.splitlines()) == 2 + 4 * len(list_models())
    assert "| U-Net | `unet` | paper, 2D | 31,030,658 | 150.4 at 572²" in table
    page = (REPOSITORY / "docs" / "networks.md").read_text(encoding="utf-8")
    shown = page.split("<!-- model table: ", 1)[1].split("<!-- end of model table -->")[0]
    assert shown.split("-->", 1)[1].strip() == table.strip(), (
        "put what `segmed model describe --all` prints into docs/networks.md"
    )
