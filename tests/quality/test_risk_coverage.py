"""Risk-coverage curves by hand, and by all orders of equal cases."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from segmed.errors import MetricError
from segmed.quality.risk_coverage import risk_coverage


def test_curve_by_hand() -> None:
    found = risk_coverage([0.9, 0.5, 0.7], [0.0, 0.6, 0.3])
    assert found.coverage == pytest.approx((1 / 3, 2 / 3, 1.0))
    assert found.risk == pytest.approx((0.0, 0.15, 0.3))
    assert found.aurc == pytest.approx(0.15)
    assert found.excess == pytest.approx(0.0)
    assert found.random_aurc == pytest.approx(0.3)


def test_a_reversed_order_is_worse_than_random() -> None:
    found = risk_coverage([0.1, 0.5, 0.9], [0.0, 0.3, 0.6])
    assert found.aurc == pytest.approx((0.6 + 0.45 + 0.3) / 3)
    assert found.best_aurc < found.random_aurc < found.aurc


def test_equal_cases_have_the_mean_of_all_their_orders() -> None:
    confidence, risk = [0.8, 0.8, 0.8, 0.3], [0.1, 0.5, 0.3, 0.9]
    orders = [
        np.cumsum([*(risk[place] for place in order), 0.9]) / np.arange(1, 5)
        for order in permutations(range(3))
    ]
    assert risk_coverage(confidence, risk).risk == pytest.approx(np.mean(orders, axis=0))


def test_a_constant_confidence_is_random() -> None:
    found = risk_coverage([0.5] * 4, [0.1, 0.2, 0.3, 0.4])
    assert found.aurc == pytest.approx(found.random_aurc)


def test_bad_input_is_refused() -> None:
    for confidence, risk in (([], []), ([0.5], [0.1, 0.2])):
        with pytest.raises(MetricError, match="at least one"):
            risk_coverage(confidence, risk)
    with pytest.raises(MetricError, match="finite"):
        risk_coverage([float("nan")], [0.1])
