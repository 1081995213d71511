"""Weights that users bring: made here in their layouts, since nothing may be downloaded."""

import pytest
import torch
from monai.networks.nets import resnet50
from torch import nn

from segmed.errors import WeightsError
from segmed.models import build_model, load_weights, read_weights
from segmed.models.inflate import adapt_channels, fit_kernel, inflate

VGG16_CONVS = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256}
VGG16_CONVS |= {17: 512, 19: 512, 21: 512, 24: 512, 26: 512, 28: 512}


def torchvision_resnet50():
    """A state dict with torchvision's 320 tensors: MONAI's net has its names."""
    torch.manual_seed(0)
    net = resnet50(
        spatial_dims=2,
        n_input_channels=3,
        conv1_t_stride=2,
        bias_downsample=False,
        num_classes=1000,
    )
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval(), net.state_dict()


def torchvision_vgg16(width, *, norm=False):
    """VGG16's layout at a fraction of its width: 32 tensors, more with norms."""
    torch.manual_seed(0)
    state, before, number = {}, 3, 0
    for count, full in zip((2, 2, 3, 3, 3), (64, 128, 256, 512, 512), strict=True):
        features = max(1, round(full * width))
        for _ in range(count):
            state[f"features.{number}.weight"] = torch.randn(features, before, 3, 3)
            state[f"features.{number}.bias"] = torch.randn(features)
            number += 1
            if norm:
                for part in ("weight", "bias", "running_mean", "running_var"):
                    state[f"features.{number}.{part}"] = torch.rand(features)
                state[f"features.{number}.num_batches_tracked"] = torch.tensor(1)
                number += 1
            number += 1  # activation
            before = features
        number += 1  # pooling
    hidden = round(4096 * width)
    for index, (rows, columns) in {
        0: (hidden, before * 49),
        3: (hidden, hidden),
        6: (1000, hidden),
    }.items():
        state[f"classifier.{index}.weight"] = torch.randn(rows, columns)
        state[f"classifier.{index}.bias"] = torch.randn(rows)
    return state


def deeplab(dims=2, in_channels=3, **options):
    return build_model(
        "deeplabv3plus",
        spatial_dims=dims,
        in_channels=in_channels,
        num_classes=2,
        preset="paper",
        **{"backbone": "resnet50", "aspp_width": 8, **options},
    )


def narrow_fcn(name="fcn8s", in_channels=3, **options):
    width = 1 / 32
    widths = [round(full * width) for full in (64, 128, 256, 512, 512, 4096)]
    return build_model(
        name,
        spatial_dims=2,
        in_channels=in_channels,
        num_classes=2,
        preset="paper",
        **{"widths": widths, **options},
    )


def test_torchvision_resnet50_loads_318_of_320_and_answers_as_monai_does():
    theirs, state = torchvision_resnet50()
    assert len(state) == 320
    model = deeplab(output_stride=32).eval()
    report = load_weights(model, state)
    assert len(report.matched) == 318
    assert report.missing == ()
    assert set(report.unexpected) == {"fc.weight", "fc.bias"}
    assert "318 of 320" in str(report)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        x = theirs.maxpool(theirs.act(theirs.bn1(theirs.conv1(image))))
        for layer in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
            x = layer(x)
        ours = model.encoder(image)[-1]
    assert (ours - x).abs().max() <= 1e-6 * x.abs().max()


def test_prefixes_of_data_parallel_and_compiled_modules_are_taken_off(tmp_path):
    model = build_model("unet", spatial_dims=2, in_channels=1, num_classes=2, widths=(4, 6))
    wrapped = {f"module._orig_mod.{key}": value + 1 for key, value in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": wrapped}, tmp_path / "theirs.pth")
    report = load_weights(model, tmp_path / "theirs.pth")
    assert len(report.matched) == len(wrapped)
    first = next(iter(wrapped))
    assert torch.equal(model.state_dict()[first[len("module._orig_mod.") :]], wrapped[first])


def test_vgg16_fills_30_of_32_and_reports_the_last_layer_unused():
    state = torchvision_vgg16(1 / 32)
    assert len(state) == 32
    model = narrow_fcn()
    report = load_weights(model, state)
    assert len(report.matched) == 30
    assert set(report.unexpected) == {"classifier.6.weight", "classifier.6.bias"}
    assert report.missing == ()
    head = model.head[0][0].weight
    assert torch.equal(head.flatten(1), state["classifier.0.weight"])
    second_stage = model.encoder.stages[1][0][0].weight
    assert torch.equal(second_stage, state["features.5.weight"])
    assert set(VGG16_CONVS) == {
        int(key.split(".")[1]) for key in state if key.startswith("features") and "weight" in key
    }


def test_vgg16_bn_fills_norms_too():
    state = torchvision_vgg16(1 / 32, norm=True)
    model = narrow_fcn(norm="batch", conv_bias=True)
    report = load_weights(model, state)
    last = model.encoder.stages[4][2]
    assert torch.equal(last[0].weight, state["features.40.weight"])
    assert torch.equal(last[1].running_var, state["features.41.running_var"])
    assert all("head" in name for name in report.missing)  # its classifier has no norm


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_medicalnet_files_load_in_3d(shortcut):
    options = {"backbone": "resnet18", "shortcut": shortcut, "width_factor": 0.1}
    source = deeplab(3, 1, **options)
    own = {
        key.removeprefix("encoder."): value + 1
        for key, value in source.state_dict().items()
        if key.startswith("encoder.")
    }
    file = {"state_dict": {f"module.{key}": value for key, value in own.items()}}
    model = deeplab(3, 1, **options)
    report = load_weights(model, file)
    assert report.missing == report.unexpected == ()
    assert torch.equal(model.encoder.conv1.weight, own["conv1.weight"])
    has_convolved = any("downsample" in key for key in own)
    assert has_convolved == (shortcut == "B")
    assert model(torch.randn(1, 1, 32, 32, 32)).shape == (1, 2, 32, 32, 32)


def test_rgb_becomes_one_channel_by_the_sum():
    state = torchvision_vgg16(1 / 32)
    model = narrow_fcn(in_channels=1)
    report = load_weights(model, state)
    assert report.adapted[0] == "features.0.weight"
    expected = state["features.0.weight"].sum(1, keepdim=True)
    assert torch.equal(model.encoder.stages[0][0][0].weight, expected)


def test_equal_channels_are_answered_as_before_by_any_number_of_them():
    weight, image = torch.randn(4, 3, 3, 3), torch.randn(1, 1, 8, 8)
    before = nn.functional.conv2d(image.expand(-1, 3, -1, -1), weight)
    for channels in (1, 2, 5):
        after = nn.functional.conv2d(
            image.expand(-1, channels, -1, -1), adapt_channels(weight, channels)
        )
        assert torch.allclose(after, before, atol=1e-5)


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_centre_inflation_equals_the_2d_convolution_on_every_slice(slice_axis):
    torch.manual_seed(0)
    weight, volume = torch.randn(4, 2, 3, 3), torch.randn(1, 2, 6, 7, 8)
    kernel = inflate(weight, (3, 3, 3), inflation="centre", slice_axis=slice_axis)
    full = nn.functional.conv3d(volume, kernel, padding=1)
    for index in range(volume.shape[2 + slice_axis]):
        plane = volume.select(2 + slice_axis, index)
        expected = nn.functional.conv2d(plane, weight, padding=1)
        assert torch.allclose(full.select(2 + slice_axis, index), expected, atol=1e-5)


def test_mean_inflation_equals_it_on_constant_input_only():
    weight = torch.randn(1, 1, 3, 3)
    kernel = inflate(weight, (3, 3, 3), inflation="mean")
    constant = torch.randn(1, 1, 5, 5, 1).expand(-1, -1, -1, -1, 7)
    full = nn.functional.conv3d(constant, kernel)
    expected = nn.functional.conv2d(constant[..., 0], weight)
    assert torch.allclose(full[..., 2], expected, atol=1e-5)
    varied = torch.randn(1, 1, 5, 5, 7)
    wrong = nn.functional.conv3d(varied, kernel)[..., 2]
    assert not torch.allclose(wrong, nn.functional.conv2d(varied[..., 3], weight), atol=1e-2)


def test_a_2d_resnet_is_inflated_into_a_3d_one():
    source = deeplab(2, 3, width_factor=0.1)
    state = {
        key.removeprefix("encoder."): value
        for key, value in source.state_dict().items()
        if key.startswith("encoder.")
    }
    model = deeplab(3, 1, width_factor=0.1)
    report = load_weights(model, state)
    assert report.missing == report.unexpected == ()
    assert len(report.adapted) == 53  # every convolution
    assert model.encoder.conv1.weight[..., 0].abs().sum() == 0


def test_a_file_that_matches_nothing_is_refused_and_changes_nothing():
    model = build_model("unet", spatial_dims=2, in_channels=1, num_classes=2, widths=(4, 6))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match="only 0 of"):
        load_weights(model, torchvision_vgg16(1 / 32))
    with pytest.raises(WeightsError, match="only 0 of"):
        load_weights(deeplab(width_factor=0.1), {"layer9.weight": torch.zeros(3)})
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_file_of_which_little_matches_is_refused():
    model = narrow_fcn()
    state = torchvision_vgg16(1 / 32)
    few = {key: state[key] for key in list(state)[:6]}
    with pytest.raises(WeightsError, match="only 6 of the 30"):
        load_weights(model, few)


def test_a_file_of_another_width_is_refused():
    with pytest.raises(WeightsError, match="should fill"):
        load_weights(narrow_fcn(), torchvision_vgg16(1 / 64))


def test_other_class_counts_are_reported_not_forced():
    source = build_model("unet", spatial_dims=2, in_channels=1, num_classes=5, widths=(4, 6))
    model = build_model("unet", spatial_dims=2, in_channels=1, num_classes=2, widths=(4, 6))
    report = load_weights(model, source.state_dict())
    assert report.misshapen == ("heads.0.weight", "heads.0.bias")
    assert report.missing == ("heads.0.weight", "heads.0.bias")


def test_pickles_and_missing_files_are_refused(tmp_path):
    torch.save({"model": nn.Linear(1, 1)}, tmp_path / "module.pth")
    with pytest.raises(WeightsError, match="plain file of tensors"):
        read_weights(tmp_path / "module.pth")
    (tmp_path / "noise.pth").write_bytes(b"not a file of weights")
    with pytest.raises(WeightsError, match="plain file of tensors"):
        read_weights(tmp_path / "noise.pth")
    with pytest.raises(WeightsError, match="no file"):
        read_weights(tmp_path / "absent.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(WeightsError, match="no tensors"):
        read_weights(tmp_path / "empty.pth")


def test_dense_layers_become_convolutions_only_where_they_fit():
    assert fit_kernel(torch.zeros(4, 18), (4, 2, 3, 3), inflation="centre").shape == (4, 2, 3, 3)
    assert fit_kernel(torch.zeros(4, 17), (4, 2, 3, 3), inflation="centre") is None
