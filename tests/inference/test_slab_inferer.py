"""The window loop behind MONAI's call: shapes, arguments, metadata, and the same map as ours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SlidingWindowInferer

from segmed.errors import ModelError, UsageError
from segmed.inference import SlabInferer, sliding_window


def two_maps(windows: torch.Tensor) -> torch.Tensor:
    return torch.cat([windows[:, :1].relu() * 2, windows.sum(1, keepdim=True)], 1)


@pytest.mark.parametrize("buffer_dim", [0, 1, -1])
def test_batch_is_walked_volume_by_volume(buffer_dim) -> None:
    inputs = torch.randn(2, 3, 20, 11, 17)
    inferer = SlabInferer((8, 6, 8), sw_batch_size=3, buffer_dim=buffer_dim)
    assert isinstance(inferer, Inferer)
    got = inferer(inputs, two_maps)
    assert got.shape == (2, 2, 20, 11, 17)
    for one, volume in zip(got, inputs, strict=True):
        expected = sliding_window(two_maps, volume, window=(8, 6, 8))
        torch.testing.assert_close(one, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(12, 9), (3, 4), (20, 6, 9), (4, 4, 4)])
def test_network_on_voxels_gives_its_own_map_as_with_monais_inferer(shape) -> None:
    inputs, window = torch.randn(2, 1, *shape), (6,) * len(shape)
    got = SlabInferer(window, overlap=0.25)(inputs, two_maps)
    theirs = SlidingWindowInferer(window, overlap=0.25, mode="gaussian")(inputs, two_maps)
    torch.testing.assert_close(got, two_maps(inputs), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("mode", "theirs"), [("monai", "gaussian"), ("constant", "constant")])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.6])
@pytest.mark.parametrize("shape", [(41, 29), (27, 11, 17), (5, 30, 8)])
def test_windows_and_weights_of_monai_give_the_map_of_its_inferer(
    mode, theirs, overlap, shape
) -> None:
    torch.manual_seed(1)
    layer = torch.nn.Conv2d if len(shape) == 2 else torch.nn.Conv3d
    network = layer(1, 3, 5, padding=2)  # sees the borders of windows
    inputs, window = torch.randn(2, 1, *shape), (12, 8, 10)[: len(shape)]
    with torch.inference_mode():
        ours = SlabInferer(window, overlap=overlap, mode=mode, placement="fixed", buffer_dim=-1)
        expected = SlidingWindowInferer(window, 2, overlap, mode=theirs)(inputs, network)
        torch.testing.assert_close(ours(inputs, network), expected, rtol=1e-5, atol=1e-5)
        elsewhere = SlabInferer(window, overlap=overlap)(inputs, network)
    assert not torch.allclose(elsewhere, expected, atol=1e-3)


def test_further_arguments_reach_the_network() -> None:
    def scaled(windows: torch.Tensor, factor: float, *, shift: float) -> torch.Tensor:
        return windows * factor + shift

    inputs = torch.randn(1, 1, 9, 9, 9)
    got = SlabInferer((4, 4, 4))(inputs, scaled, 3.0, shift=1.0)
    torch.testing.assert_close(got, inputs * 3 + 1, rtol=1e-5, atol=1e-5)


def test_metatensor_keeps_its_metadata() -> None:
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    inputs = MetaTensor(torch.randn(1, 1, 9, 9, 9), affine=affine)
    seen = []
    got = SlabInferer((4, 4, 4))(inputs, lambda windows: seen.append(type(windows)) or windows)
    assert isinstance(got, MetaTensor)
    assert torch.equal(got.affine, affine)
    assert set(seen) == {torch.Tensor}


def test_probabilities_are_blended_where_softmax_is_asked_for() -> None:
    def uneven(windows: torch.Tensor) -> torch.Tensor:
        return two_maps(windows) * windows.shape[0]  # another scale in the last, smaller batch

    inputs = torch.randn(1, 1, 10, 10)
    got = SlabInferer((6, 6), sw_batch_size=3, softmax=True)(inputs, uneven)
    torch.testing.assert_close(got.sum(1), torch.ones(1, 10, 10))


def test_two_dimensional_network_goes_slice_by_slice() -> None:
    inputs = torch.randn(2, 1, 5, 9, 9)
    seen = []

    def plane(windows: torch.Tensor) -> torch.Tensor:
        seen.append(windows.ndim)
        return two_maps(windows)

    got = SlabInferer((1, 6, 6), slice_axis=0)(inputs, plane)
    torch.testing.assert_close(got, two_maps(inputs), rtol=1e-5, atol=1e-5)
    assert set(seen) == {4}


@pytest.mark.parametrize(
    "options",
    [
        {"roi_size": (4,)},
        {"roi_size": (4, 0, 4)},
        {"overlap": 1.0},
        {"mode": "hann"},
        {"sw_batch_size": 0},
        {"buffer_dim": 3},
        {"slice_axis": 0},
        {"placement": "odd"},
    ],
)
def test_options_out_of_range_are_refused_by_name(options) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        SlabInferer(**{"roi_size": (4, 4, 4), **options})


@pytest.mark.parametrize("shape", [(9, 9, 9), (1, 9, 9, 9), (0, 1, 9, 9, 9), (1, 1, 9, 9)])
def test_inputs_without_batch_or_channels_are_refused(shape) -> None:
    with pytest.raises(UsageError, match=r"\[B, C"):
        SlabInferer((4, 4, 4))(torch.zeros(shape), two_maps)


@pytest.mark.parametrize("inputs", [np.zeros((1, 1, 9, 9, 9), np.float32), [[0.0]], "image.nii"])
def test_inputs_of_another_type_are_refused_by_name(inputs) -> None:
    with pytest.raises(UsageError, match=f"inputs is a {type(inputs).__name__}: .*Tensor"):
        SlabInferer((4, 4, 4))(inputs, two_maps)


@pytest.mark.parametrize("output", [lambda w: [w], lambda w: {"a": w}, lambda w: w[..., :2]])
def test_outputs_that_are_no_map_are_refused(output) -> None:
    with pytest.raises(ModelError, match="network gave"):
        SlabInferer((4, 4, 4))(torch.zeros(1, 1, 9, 9, 9), output)
