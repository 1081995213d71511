"""Risk against coverage: the error left in the cases that are not reviewed, by confidence.

Source:
    Geifman and El-Yaniv 2017, NeurIPS, section 2; Jaeger et al. 2023, ICLR, section 3 (failure
    detection); Zenk et al. 2025, Medical Image Analysis 101, 103392 (risk 1 - Dice).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segmed.errors import MetricError


@dataclass(frozen=True)
class RiskCoverage:
    """A risk-coverage curve.

    Attributes:
        coverage: Share of the cases that is not reviewed, rising to 1.
        risk: Mean risk of these cases.
        aurc: Area under the curve; lower is better.
        best_aurc: Area if the confidence ordered the cases perfectly.
        random_aurc: Area if it ordered them at random: the mean risk.
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    aurc: float
    best_aurc: float
    random_aurc: float

    @property
    def excess(self) -> float:
        """E-AURC: the area above the best one."""
        return self.aurc - self.best_aurc


def risk_coverage(confidence: Sequence[float], risk: Sequence[float]) -> RiskCoverage:
    """Curve of the mean risk of the most confident cases.

    Cases of equal confidence enter in random order: the curve is the mean over these orders.

    Args:
        confidence: Of each case, such as its predicted Dice; higher is better.
        risk: Of each case, such as 1 - Dice.

    Raises:
        MetricError: No case, other lengths, or a value that is not a number.
    """
    sure, loss = np.asarray(confidence, np.float64), np.asarray(risk, np.float64)
    if sure.shape != loss.shape or sure.ndim != 1 or not sure.size:
        raise MetricError(
            f"confidence {sure.shape} and risk {loss.shape} must be one value a case, at least one"
        )
    if not (np.isfinite(sure).all() and np.isfinite(loss).all()):
        raise MetricError("confidence and risk must be finite numbers; leave other cases out")
    curve = _selective(sure, loss)
    number = np.arange(1, len(loss) + 1)
    return RiskCoverage(
        coverage=tuple((number / len(loss)).tolist()),
        risk=tuple(curve.tolist()),
        aurc=float(curve.mean()),
        best_aurc=float(_selective(-loss, loss).mean()),
        random_aurc=float(loss.mean()),
    )


def _selective(confidence: npt.NDArray[Any], risk: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Mean risk of the 1, 2, ... most confident cases; equal ones share their mean risk."""
    _, block = np.unique(-confidence, return_inverse=True)
    mean = np.bincount(block, weights=risk) / np.bincount(block)
    shared = np.sort(block)  # block numbers rise as the confidence falls
    return np.asarray(np.cumsum(mean[shared]) / np.arange(1, len(risk) + 1))
