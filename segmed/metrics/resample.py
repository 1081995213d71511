"""Seeded bootstrap over cases."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

DRAWS = 2000
"""Bootstrap samples behind every interval."""

CONFIDENCE = 0.95
"""Coverage of every interval."""

SEED = 20240229
"""Seed of the bootstrap, so that a table is the same each time it is made."""


def bootstrap_means(values: Values, *, draws: int = DRAWS, seed: int = SEED) -> Values:
    """Means over cases drawn with replacement; the same draws for every column.

    Args:
        values: One row a case, `[cases, columns]`, without NaN.
        draws: How many samples.
        seed: Seed of the draws.

    Returns:
        Means, `[draws, columns]`.

    Source:
        Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13 (percentiles).
    """
    return np.asarray(_weights(len(values), draws, seed) @ values)


@lru_cache(maxsize=4)
def _weights(cases: int, draws: int, seed: int) -> Values:
    """Bootstrap weights: the share of each case in each resample, `[draws, cases]`."""
    times = np.random.default_rng(seed).multinomial(cases, np.full(cases, 1 / cases), size=draws)
    return np.asarray(times / cases)


def interval(samples: npt.NDArray[Any]) -> tuple[Values, Values]:
    """Lower and upper end of the central interval of each column, at `CONFIDENCE`."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(samples, [tail, 100 - tail], axis=0)
    return low, high
