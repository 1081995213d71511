"""Multi-scale structural similarity of probability maps.

Wang, Simoncelli, Bovik 2003, Asilomar, eq. 7; windows and constants as in Wang et al. 2004.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW = 11
SIGMA = 1.5
C1 = 0.01**2
C2 = 0.03**2

SMALLEST_FACTOR = 1e-4
"""Below it the power of a factor goes on as a straight line: its slope at 0 would be infinite."""


def choose_scales(size: Sequence[int]) -> tuple[tuple[int, ...], int]:
    """Window and number of scales that a patch bears.

    Args:
        size: Of the patch, per axis.

    Returns:
        The window per axis (11, or the largest odd one that fits), and how many scales (5 at most)
        keep the map at least as large as the window. Five at 11 need sides of 176 and more.
    """
    window = tuple(min(WINDOW, n - 1 + n % 2) for n in size)
    scales = 1
    while scales < len(SCALE_WEIGHTS) and all(
        n >> scales >= taps for n, taps in zip(size, window, strict=True)
    ):
        scales += 1
    return window, scales


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Similarity of two maps of range 1; each scale counts once.

    Args:
        x: `[B, C, *spatial]`.
        y: `[B, C, *spatial]`.

    Returns:
        `[B]`, 1 for equal maps. On patches too small for five scales the weights of those that are
        left are normalised to sum to 1.
    """
    window, scales = choose_scales(x.shape[2:])
    raw = SCALE_WEIGHTS[:scales]
    weights = raw if scales == len(SCALE_WEIGHTS) else [weight / sum(raw) for weight in raw]
    pool = F.avg_pool2d if x.ndim == 4 else F.avg_pool3d
    result = x.new_ones(x.shape[0])
    for scale, weight in enumerate(weights):
        if scale > 0:
            x, y = pool(x, 2), pool(y, 2)
        luminance, contrast = _ssim_terms(x, y, window)
        is_last = scale == scales - 1
        factor = (luminance * contrast if is_last else contrast).flatten(1).mean(1)
        result = result * _power(factor, weight)
    return result


def _power(factor: Tensor, weight: float) -> Tensor:
    positive = torch.relu(factor)
    line = positive * SMALLEST_FACTOR ** (weight - 1)
    return torch.where(
        positive > SMALLEST_FACTOR, positive.clamp(min=SMALLEST_FACTOR) ** weight, line
    )


def _ssim_terms(x: Tensor, y: Tensor, window: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Luminance, and contrast times structure, wherever the window fits."""
    mean_x, mean_y = _blur(x, window), _blur(y, window)
    var_x = _blur(x * x, window) - mean_x**2
    var_y = _blur(y * y, window) - mean_y**2
    covariance = _blur(x * y, window) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return luminance, (2 * covariance + C2) / (var_x + var_y + C2)


def _blur(x: Tensor, window: Sequence[int]) -> Tensor:
    """Gaussian mean, axis by axis; the map shrinks by the window less one."""
    for axis, taps in enumerate(window, start=2):
        weights = _band(x.shape[axis], taps).to(x)  # [out, in]
        if axis == x.ndim - 1:
            x = x @ weights.T
        elif axis == x.ndim - 2:
            x = weights @ x
        else:
            rest = x.shape[axis + 1 :]
            x = (weights @ x.flatten(axis + 1)).unflatten(axis + 1, rest)
    return x


@lru_cache(maxsize=64)
def _band(size: int, taps: int) -> Tensor:
    """The mean over a Gaussian window as a matrix `[size - taps + 1, size]`."""
    offsets = torch.arange(taps, dtype=torch.float32) - (taps - 1) / 2
    profile = torch.exp(-((offsets / SIGMA) ** 2) / 2)
    profile = profile / profile.sum()
    band = torch.zeros(size - taps + 1, size)
    for row in range(band.shape[0]):
        band[row, row : row + taps] = profile
    return band
