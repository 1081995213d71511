"""Tests on paired differences, and their correction for how many there are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

Values = npt.NDArray[np.float64]

SIGNIFICANCE = 0.05
"""Family-wise error rate below which a difference is called one."""

EXACT_CASES = 12
"""Up to so many differences with ties or zeros, all sign patterns are enumerated."""


def signed_rank_p(differences: Values) -> float:
    """Two-sided p of the Wilcoxon signed-rank test; zeros are left out.

    Args:
        differences: One paired difference a case.

    Returns:
        p value; 1 where every difference is zero. Exact without ties up to 50 differences and
        with ties up to 12; the normal approximation otherwise.

    Source:
        Wilcoxon 1945, Biometrics Bulletin 1(6).
    """
    rest = differences[differences != 0]
    if rest.size == 0:
        return 1.0
    has_ties = np.unique(np.abs(rest)).size < rest.size
    if has_ties and rest.size <= EXACT_CASES:
        return _enumerated_p(rest)
    method = "exact" if not has_ties and rest.size <= 50 else "asymptotic"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # scipy on few cases: enumerated above
        return float(stats.wilcoxon(rest, method=method).pvalue)


def _enumerated_p(differences: Values) -> float:
    """Exact p over all sign patterns of the mid-ranks."""
    ranks = stats.rankdata(np.abs(differences))
    signs = (np.arange(2**ranks.size)[:, None] >> np.arange(ranks.size)) & 1
    sums = signs @ ranks
    centre = ranks.sum() / 2
    seen = abs(ranks[differences > 0].sum() - centre)
    return float(np.mean(np.abs(sums - centre) >= seen - 1e-9))


def holm(p_values: Sequence[float] | Values) -> Values:
    """P values corrected for all tests of the family, in the order given.

    Source:
        Holm 1979, Scandinavian Journal of Statistics 6(2).
    """
    raw = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    stepped = raw[order] * np.arange(raw.size, 0, -1)
    corrected = np.empty_like(raw)
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return corrected


def smallest_p(differences: Values) -> float:
    """Smallest p that the signed-rank test can give for so many differences other than zero."""
    return float(min(1.0, 2.0 ** (1 - np.count_nonzero(differences))))


def tarone(p_values: Sequence[float] | Values, smallest: Sequence[float] | Values) -> Values:
    """P values corrected for those tests of a family that could be significant at all.

    A test that changes few cases cannot reach a small p, whatever the signs of its differences;
    such a test costs the others nothing, and is never significant.

    Args:
        p_values: P value of each test.
        smallest: Smallest p that each test can give, from `smallest_p`.

    Source:
        Tarone 1990, Biometrics 46(2).
    """
    raw, least = np.asarray(p_values, dtype=np.float64), np.asarray(smallest, dtype=np.float64)
    for factor in range(1, raw.size + 1):
        is_testable = least <= SIGNIFICANCE / factor
        if is_testable.sum() <= factor:
            return np.where(is_testable, np.minimum(1.0, factor * raw), 1.0)
    return np.ones_like(raw)
