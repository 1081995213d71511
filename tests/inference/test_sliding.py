"""The window loop against arithmetic in float64."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import ceil

import numpy as np
import pytest
import torch
from torch import Tensor

from segmed.errors import ModelError, UsageError
from segmed.inference import sliding
from segmed.inference.sliding import WindowRecipe, sliding_slabs, sliding_window
from segmed.inference.windows import WindowGrid, window_starts


def blend_in_float64(
    maps: dict[tuple[int, ...], np.ndarray], shape: Sequence[int], window: Sequence[int]
) -> np.ndarray:
    """An independent blend: Gaussian of sigma window/8, weighted mean, everything in float64."""
    axes = np.meshgrid(*[np.arange(edge) - (edge - 1) / 2 for edge in window], indexing="ij")
    weight = np.exp(-sum((a / (edge / 8)) ** 2 for a, edge in zip(axes, window, strict=True)) / 2)
    first = next(iter(maps.values()))
    total, norm = np.zeros((first.shape[0], *shape)), np.zeros(shape)
    for corner, values in maps.items():
        box = tuple(slice(c, c + edge) for c, edge in zip(corner, window, strict=True))
        total[(slice(None), *box)] += weight * values
        norm[box] += weight
    return total / norm


def double(windows: Tensor) -> Tensor:
    return torch.cat([windows * 2, windows * windows], dim=1)


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((23, 31, 17), (8, 16, 9)),
        ((5, 40, 12), (8, 16, 12)),
        ((33, 20), (16, 16)),
        ((7,) * 3, (9,) * 3),
    ],
)
@pytest.mark.parametrize("blend", ["gaussian", "constant"])
def test_window_over_a_predictor_that_doubles_returns_twice_the_input(
    shape: tuple[int, ...], window: tuple[int, ...], blend: str
) -> None:
    volume = torch.randn(1, *shape)
    found = sliding_window(double, volume, window=window, blend=blend, batch=3)
    torch.testing.assert_close(found, double(volume[None])[0], rtol=1e-5, atol=1e-5)


def test_blend_equals_an_independent_one_in_float64() -> None:
    shape, window = (40, 29, 33), (16, 16, 12)
    generator = np.random.default_rng(0)
    per_axis = []
    for size, edge in zip(shape, window, strict=True):
        gaps = ceil((size - edge) / (edge / 2))
        per_axis.append([round(n * (size - edge) / gaps) for n in range(gaps + 1)])
    maps = {corner: generator.random((3, *window)) for corner in product(*per_axis)}
    queue = [torch.from_numpy(values.astype(np.float32)) for values in maps.values()]

    def noise(windows: Tensor) -> Tensor:
        return torch.stack([queue.pop(0) for _ in windows])

    found = sliding_window(noise, torch.zeros(1, *shape), window=window, batch=4)
    assert not queue
    np.testing.assert_allclose(
        found.numpy(), blend_in_float64(maps, shape, window), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("buffer_dim", [0, 1, 2])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.7])
def test_slabs_put_together_equal_the_whole_map(buffer_dim: int, overlap: float) -> None:
    volume = torch.randn(1, 29, 11, 40)
    window = (12, 16, 8)
    whole = sliding_window(double, volume, window=window, overlap=overlap)
    joined = torch.full_like(whole, torch.nan)
    end = 0
    recipe = WindowRecipe(window, overlap, batch=3, buffer_dim=buffer_dim)
    for slab in sliding_slabs(double, volume, recipe):
        rows = slab.values.shape[1 + buffer_dim]
        assert slab.start == end
        end = slab.start + rows
        joined.narrow(1 + buffer_dim, slab.start, rows).copy_(slab.values)
    assert end == volume.shape[1 + buffer_dim]
    torch.testing.assert_close(joined, whole, rtol=1e-6, atol=1e-6)


def test_windows_blended_in_slabs_equal_windows_blended_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    volume = torch.randn(1, 29, 11, 40)
    whole = sliding_window(double, volume, window=(13, 10, 8))
    monkeypatch.setattr(sliding, "SLAB_VOXELS", 5 * 10 * 8)
    assert torch.equal(sliding_window(double, volume, window=(13, 10, 8)), whole)


def test_weights_of_all_windows_sum_to_one_at_every_voxel() -> None:
    grid = WindowGrid((20, 33, 9), (8, 12, 9), 0.5)
    total = torch.zeros(grid.shape)
    for corner in grid.corners():
        box = tuple(slice(c, c + e) for c, e in zip(corner, grid.window, strict=True))
        total[box] += grid.weight(corner)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-5, atol=1e-5)


def test_starts_cover_both_ends_evenly_with_at_least_the_asked_overlap() -> None:
    assert window_starts(160, 96, 0.5) == [0, 32, 64]
    assert window_starts(96, 96, 0.5) == [0]
    starts = window_starts(101, 32, 0.5)
    assert starts[0] == 0
    assert starts[-1] == 101 - 32
    assert max(np.diff(starts)) <= 16


def test_windows_without_a_body_are_background_and_spare_the_network() -> None:
    volume = torch.zeros(1, 40, 8, 8)
    volume[:, :10] = torch.randn(1, 10, 8, 8)
    seen = 0

    def foreground(windows: Tensor) -> Tensor:
        nonlocal seen
        seen += len(windows)
        return torch.cat([windows * 0, windows * 0 + 1], dim=1)

    recipe = WindowRecipe((10, 8, 8), 0.0, skip_empty=True)
    slabs = [slab.values.clone() for slab in sliding_slabs(foreground, volume, recipe)]
    found = torch.cat(slabs, dim=1)
    assert seen == 1
    assert (found[1, :10] == 1).all()
    assert (found[0, 10:] == 1).all()
    assert (found[1, 10:] == 0).all()


def test_network_that_leaves_the_window_grid_is_refused() -> None:
    with pytest.raises(ModelError, match="grid"):
        sliding_window(lambda w: w[..., ::2], torch.zeros(1, 8, 8), window=(8, 8))


def test_window_of_other_axes_than_the_volume_is_refused() -> None:
    with pytest.raises(UsageError, match="axes"):
        sliding_window(double, torch.zeros(1, 8, 8), window=(8, 8, 8))


def test_overlap_of_one_is_refused() -> None:
    with pytest.raises(UsageError, match="overlap"):
        sliding_window(double, torch.zeros(1, 8, 8), window=(4, 4), overlap=1.0)
