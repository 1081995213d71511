"""Resampling is scipy's, and means what geometry says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segmed.transforms.resampling import axis_matrix, coordinates, resample, resampled_shape

AGREEMENT = 1e-5


def scipy_resample(array: np.ndarray, shape: tuple[int, ...], order: int) -> np.ndarray:
    factors = [new / old for old, new in zip(array.shape, shape, strict=True)]
    return ndimage.zoom(array, factors, order=order, grid_mode=True, mode="reflect")


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((13, 7, 20), (9, 15, 20)),
        ((40, 31, 22), (23, 45, 1)),
        ((1, 5, 6), (3, 2, 9)),
        ((9,), (20,)),
    ],
)
def test_resampling_equals_scipy(old: tuple[int, ...], new: tuple[int, ...], order: int) -> None:
    array = np.random.default_rng(1).normal(size=old)
    ours = resample(torch.from_numpy(array).float()[None], new, order=order)[0].numpy()
    np.testing.assert_allclose(ours, scipy_resample(array, new, order), atol=AGREEMENT)


@settings(max_examples=40, deadline=None)
@given(
    # scipy's own reflecting filter is inexact on axes of fewer voxels, by about 0.27 ** (2 n).
    old=st.lists(st.integers(6, 70), min_size=2, max_size=3),
    new=st.lists(st.integers(1, 70), min_size=3, max_size=3),
    order=st.sampled_from([1, 3]),
    seed=st.integers(0, 9),
)
def test_any_shape_equals_scipy_in_any_memory_layout(
    old: list[int], new: list[int], order: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    array = random.normal(size=old)
    shape = tuple(new[: len(old)])
    layout = tuple(random.permutation(len(old)))
    stored = np.ascontiguousarray(array.astype(np.float32).transpose(layout))
    view = torch.from_numpy(stored).permute(tuple(np.argsort(layout)))[None]
    expected = scipy_resample(array, shape, order)
    np.testing.assert_allclose(resample(view, shape, order=order)[0], expected, atol=AGREEMENT)


@settings(max_examples=30, deadline=None)
@given(
    old=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    new=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    flips=st.tuples(st.booleans(), st.booleans()),
    order=st.sampled_from([0, 1, 3]),
)
def test_mirroring_within_equals_mirroring_after(
    old: tuple[int, int], new: tuple[int, int], flips: tuple[bool, bool], order: int
) -> None:
    image = torch.from_numpy(np.random.default_rng(2).normal(size=(2, *old))).float()
    within = resample(image, new, order=order, flips=flips)
    after = resample(image, new, order=order).flip([n + 1 for n, flip in enumerate(flips) if flip])
    torch.testing.assert_close(within, after, atol=1e-6, rtol=0)


def test_linear_ramp_stays_a_ramp_in_millimetres() -> None:
    ramp = torch.arange(64, dtype=torch.float32)[None]
    at = coordinates(64, 37)
    for order in (1, 3):
        resampled = resample(ramp, (37,), order=order)[0].numpy()
        np.testing.assert_allclose(resampled[6:-6], at[6:-6], atol=2e-3)


@pytest.mark.parametrize("order", [1, 3])
def test_a_constant_image_stays_constant(order: int) -> None:
    image = torch.full((1, 11, 6), 7.0)
    assert torch.allclose(resample(image, (5, 13), order=order), torch.tensor(7.0), atol=1e-5)
    assert np.allclose(axis_matrix(512, 273, order).sum(axis=1), 1.0, atol=1e-7)


def test_spline_weights_are_a_narrow_band() -> None:
    used = (axis_matrix(512, 273, 3) != 0).sum(axis=1)
    assert used.max() < 40


def test_nearest_makes_no_new_values() -> None:
    label = torch.randint(0, 4, (1, 17, 9), dtype=torch.uint8) * 60
    assert set(resample(label, (30, 5), order=0).unique().tolist()) <= {0, 60, 120, 180}


def test_shape_follows_the_voxel_edges() -> None:
    assert resampled_shape((512, 512, 128), (0.8, 0.8, 2.5), (1.5, 1.5, 2.0)) == (273, 273, 160)
    assert resampled_shape((3,), (1.0,), (100.0,)) == (1,)
