"""FCN-32s, 16s, 8s: sizes, bilinear kernels, taps, at-once scaling, staged transfer."""

import pytest
import torch

from segmed.errors import ModelError
from segmed.models import build_model
from segmed.models.fcn import bilinear_kernel

NARROW = (2, 3, 4, 5, 6, 8)


def paper(name, classes=3, **options):
    torch.manual_seed(0)
    return build_model(
        name,
        spatial_dims=2,
        in_channels=1,
        num_classes=classes,
        preset="paper",
        **{"widths": NARROW, **options},
    ).eval()


@pytest.mark.parametrize("name", ["fcn32s", "fcn16s", "fcn8s"])
def test_output_has_the_size_of_the_input_and_a_fresh_net_answers_zero(name):
    model = paper(name)
    with torch.no_grad():
        for n in (1, 7, 31, 32, 33, 63, 64, 65, 96, 100, 127, 224, 500):
            logits = model(torch.randn(1, 1, n, n))
            assert logits.shape == (1, 3, n, n)
            assert not logits.any()


@pytest.mark.parametrize(("factor", "total"), [(2, 4), (8, 64), (16, 256), (32, 1024)])
def test_deconvolutions_start_bilinear_within_and_zero_across_classes(factor, total):
    kernel = bilinear_kernel((factor, factor), 3)
    assert kernel.shape == (3, 3, 2 * factor, 2 * factor)
    assert kernel.sum((2, 3)).tolist() == (torch.eye(3) * total).tolist()
    if factor == 2:
        profile = torch.tensor([0.25, 0.75, 0.75, 0.25])
        assert torch.equal(kernel[0, 0], profile[:, None] * profile)


def test_nets_hold_those_kernels():
    model = paper("fcn8s")
    assert torch.equal(model.enlarge_taps[0].weight, bilinear_kernel((2, 2), 3))
    assert torch.equal(model.enlarge_last[0].weight, bilinear_kernel((8, 8), 3))
    assert torch.equal(paper("fcn16s").enlarge_last[0].weight, bilinear_kernel((16, 16), 3))


def test_bilinear_deconvolution_is_linear_interpolation_inside():
    kernel = bilinear_kernel((4, 2, 3), 1)
    volume = torch.randn(1, 1, 5, 6, 7)
    large = torch.nn.functional.conv_transpose3d(
        volume, kernel, stride=(4, 2, 3), padding=(2, 1, 1)
    )
    expected = torch.nn.functional.interpolate(
        volume, size=(20, 12, 21), mode="trilinear", align_corners=False
    )
    inside = (..., slice(4, -4), slice(2, -2), slice(3, -3))
    assert torch.allclose(large[inside], expected[inside], atol=1e-5)


def randomise_scores(model):
    torch.manual_seed(3)
    for score in [model.score, *model.score_taps]:
        torch.nn.init.normal_(score.weight)
    return model


@pytest.mark.parametrize(("name", "read"), [("fcn32s", []), ("fcn16s", [4]), ("fcn8s", [4, 3])])
def test_each_net_reads_its_own_poolings_and_no_others(name, read):
    model = randomise_scores(paper(name))
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        maps = model.encoder(image)
        before = model._fuse(maps, (5, 9)[: len(read)])[-1]
        for level in (4, 3, 2):
            changed = list(maps)
            changed[level] = maps[level] + 1
            after = model._fuse(changed, (5, 9)[: len(read)])[-1]
            assert torch.equal(before, after) == (level not in read)


def test_at_once_with_its_scores_scaled_up_equals_plain_8s():
    plain = randomise_scores(paper("fcn8s"))
    scaled = paper("fcn8s", at_once=True)
    scaled.load_state_dict(plain.state_dict())
    image = torch.randn(1, 1, 50, 40)
    with torch.no_grad():
        assert not torch.allclose(scaled(image), plain(image), atol=1e-3)
        scaled.score_taps[0].weight *= 100
        scaled.score_taps[1].weight *= 10_000
        assert torch.allclose(scaled(image), plain(image), atol=1e-4)


def pass_through(model):
    """Every convolution hands its first channel on; only the finest score is read."""
    with torch.no_grad():
        for module in [*model.encoder.modules(), *model.head.modules()]:
            if isinstance(module, torch.nn.Conv2d):
                module.weight.zero_()
                centre = tuple(n // 2 for n in module.kernel_size)
                module.weight[(0, 0, *centre)] = 1.0
        finest = [model.score, *model.score_taps][-1]
        finest.weight[0, 0] = 1.0
    return model


@pytest.mark.parametrize("name", ["fcn32s", "fcn16s", "fcn8s"])
def test_crops_put_every_score_where_it_was_taken(name):
    # the maximum of a ramp over a cell is its middle plus half a cell: a falling ramp cancels that
    model = pass_through(paper(name, classes=1))
    n = 224
    ramp = torch.arange(n, dtype=torch.float32).expand(1, 1, n, n)
    with torch.no_grad():
        rising, falling = model(ramp), model(n - ramp)
    found = (rising - falling + n) / 2
    inside = (..., slice(80, 144), slice(80, 144))
    assert torch.allclose(found[inside], ramp[inside], atol=1e-3)


def test_upsampling_can_be_frozen():
    model = paper("fcn8s", freeze_upsampling=True)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"enlarge_taps.0.weight", "enlarge_taps.1.weight", "enlarge_last.0.weight"}
    with pytest.raises(ModelError, match="deconv"):
        paper("fcn8s", freeze_upsampling=True, upsample="linear")


def test_planned_8s_with_a_total_stride_of_8_taps_strides_4_and_2():
    model = build_model("fcn8s", spatial_dims=3, in_channels=1, num_classes=2, widths=(4, 4, 4, 4))
    assert [model.level_strides[level] for level in model.taps] == [(4, 4, 4), (2, 2, 2)]
    assert model.enlarge_last[0].stride == (2, 2, 2)


def test_3d_preset_keeps_the_stages_and_replaces_fc6():
    with torch.device("meta"):
        model = build_model("fcn8s", spatial_dims=3, in_channels=1, num_classes=2, preset="paper")
    assert model.head[0][0].weight.shape == (1024, 512, 3, 3, 3)
    assert [len(stage) for stage in model.encoder.stages] == [2, 2, 3, 3, 3]
    assert model(torch.empty(1, 1, 35, 51, 35, device="meta")).shape == (1, 2, 35, 51, 35)


def test_the_padding_of_100_is_for_five_poolings_in_2d():
    with pytest.raises(ModelError, match="five poolings"):
        paper("fcn8s", widths=(2, 3, 4, 5))
