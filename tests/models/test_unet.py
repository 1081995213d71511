"""The U-Net: sizes of the valid form, any size in the default form."""

import pytest
import torch
from overlap_tile import mirror, predict_tiles

from segmed.errors import ModelError, UsageError
from segmed.models import build_model
from segmed.models.unet import output_size

NARROW = (4, 6, 8, 10, 12)


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


def valid_unet(**options):
    torch.manual_seed(0)
    return build_model(
        "unet",
        spatial_dims=2,
        in_channels=1,
        num_classes=2,
        preset="paper",
        **{"widths": NARROW, **options},
    ).eval()


def test_tiles_of_the_valid_unet_equal_the_mirrored_whole_image():
    model = valid_unet(widths=(4, 6, 8))
    tile, margin = 60, 20  # 60 -> 20 with two poolings
    torch.manual_seed(1)
    image = torch.randn(1, 1, 70, 47)
    with torch.no_grad():
        tiled = predict_tiles(model, image, tile=(tile, tile))
        whole = model(mirror(image, (margin, margin), (10, 13)))[..., :70, :47]
    assert tiled.shape == (1, 2, 70, 47)
    assert (tiled - whole).abs().max() <= 1e-6 * whole.abs().max().clamp(min=1)


def test_skips_of_the_valid_unet_are_cropped_about_the_centre():
    model = valid_unet()
    with torch.no_grad():
        for up in model.ups:
            up.weight.zero_()  # leaves the skip of the finest level alone
        for parameter in model.parameters():
            parameter.abs_()
    image = torch.rand(1, 1, 188, 188, requires_grad=True)
    model(image)[0, 0, 1, 2].backward()
    rows, columns = (image.grad[0, 0] != 0).nonzero().unbind(1)
    assert (rows.min(), rows.max()) == (1 + 92 - 4, 1 + 92 + 4)
    assert (columns.min(), columns.max()) == (2 + 92 - 4, 2 + 92 + 4)


def test_tiles_are_refused_where_they_make_no_sense():
    padded = build_model("unet", spatial_dims=2, in_channels=1, num_classes=2, widths=(4, 6))
    with pytest.raises(ModelError, match="valid"):
        predict_tiles(padded, torch.zeros(1, 1, 40, 40), tile=(20, 20))
    with pytest.raises(ModelError, match="cannot take tiles of 190"):
        predict_tiles(valid_unet(), torch.zeros(1, 1, 400, 400), tile=(190, 188))
    with pytest.raises(ModelError, match="mirrored"):
        predict_tiles(valid_unet(), torch.zeros(1, 1, 50, 400), tile=(188, 188))


def test_the_unet_has_23_convolutions():
    convs = [
        module
        for module in valid_unet().modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d)
    ]
    assert len(convs) == 23


def test_valid_sizes_are_188_and_every_sixteenth_more():
    levels = valid_unet().levels
    good = [n for n in range(1, 260) if output_size(levels, n, 0) is not None]
    assert good == [188, 204, 220, 236, 252]
    assert all(output_size(levels, n, 0) == n - 184 for n in good)


def test_dropout_stands_at_the_two_deepest_levels():
    model = build_model(
        "unet", spatial_dims=2, in_channels=1, num_classes=2, widths=(4, 4, 4, 4), dropout=0.9
    ).train()
    seen = []
    model.drop.register_forward_hook(lambda m, i, o: seen.append(o.shape[-1]))
    model(torch.randn(1, 1, 32, 32))
    assert seen == [8, 4]


def test_an_unknown_option_lists_the_known_ones():
    with pytest.raises(UsageError, match="kernels"):
        build_model("unet", spatial_dims=2, in_channels=1, num_classes=2, kernel=3)
