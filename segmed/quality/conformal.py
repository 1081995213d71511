"""Split-conformal intervals: coverage that needs no model of the errors, only exchangeability.

The unit is the patient: cases of one patient resemble each other, so one case of each is drawn.
With n of them the smallest statable interval has a coverage of n / (n + 1); anything narrower is
infinite, and reported as not stated.

Source:
    Vovk, Gammerman and Shafer 2005, Algorithmic Learning in a Random World, ch. 2 and 4; Lei et
    al. 2018, JASA 113(523), algorithm 2 and section 5.2 (scores relative to a difficulty);
    Dunn, Wasserman and Ramdas 2022, JASA 118(544), section 3.3 (one draw of each group).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segmed.errors import MetricError
from segmed.quality.binomial import check_confidence

ROUNDING = 1e-9
"""Slack of a rank, so that 0.9 * 10 is 9 and not 10."""


def conformal_quantile(scores: Sequence[float], coverage: float) -> float:
    """Bound that the score of a further, exchangeable case keeps with a probability.

    Args:
        scores: Nonconformity scores of the calibration cases; infinite ones count as such.
        coverage: The probability, such as 0.9.

    Returns:
        The score of rank ceil((n + 1) * coverage); infinite where n is too small for one.

    Raises:
        MetricError: A score is not a number, or the coverage is not between 0 and 1.
    """
    check_confidence(coverage)
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    if np.isnan(ordered).any():
        raise MetricError("a calibration score is not a number; leave the case out and report it")
    rank = math.ceil((len(ordered) + 1) * coverage - ROUNDING)
    return float(ordered[rank - 1]) if rank <= len(ordered) else math.inf


def fewest_cases(coverage: float) -> int:
    """Fewest calibration cases with which an interval of this coverage is finite."""
    check_confidence(coverage)
    return math.ceil(coverage / (1.0 - coverage) - ROUNDING)


def one_of_each(groups: Sequence[Hashable], *, seed: int = 0) -> npt.NDArray[Any]:
    """Positions of one case of each group, drawn at random.

    The draw depends on the names and sizes of the groups and on the seed, never on a score.

    Args:
        groups: Group (patient) of each case.
        seed: Seed of the draw.

    Returns:
        Rising positions, as many as there are groups.
    """
    places: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    rng = np.random.default_rng(seed)
    chosen = [places[group][int(rng.integers(len(places[group])))] for group in _ordered(places)]
    return np.sort(np.asarray(chosen, dtype=np.int64))


def split_groups(
    groups: Sequence[Hashable], share: float, *, seed: int = 0
) -> npt.NDArray[np.bool_]:
    """Mark the cases of a random share of the groups; no group is divided.

    Args:
        groups: Group (patient) of each case.
        share: Share of the groups that is marked, 0 to 1, rounded up.
        seed: Seed of the draw.
    """
    names = _ordered(groups)
    order = np.random.default_rng(seed).permutation(len(names))
    marked = {names[place] for place in order[: math.ceil(share * len(names) - ROUNDING)]}
    return np.asarray([group in marked for group in groups], dtype=np.bool_)


def _ordered(groups: Any) -> list[Hashable]:
    """Each group once, in an order that does not depend on that of the cases."""
    return sorted(set(groups), key=str)
