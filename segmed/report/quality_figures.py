"""Figures of predicted quality: calibration, and risk by coverage."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np

from segmed.quality.risk_coverage import RiskCoverage
from segmed.report.figures import COLOURS, FAINT, STYLE, as_svg, new_figure


def calibration_svg(points: Sequence[tuple[float, float]]) -> str:
    """Predicted against true Dice: a dot a case and structure, the diagonal for equality.

    Args:
        points: Predicted and true Dice.

    Returns:
        An SVG element.
    """
    predicted, true = np.asarray(points, dtype=np.float64).T
    with mpl.rc_context(STYLE):
        figure, (axis,) = new_figure(4.6, 4.2, 1)
        edges = (min(predicted.min(), true.min()), 1.0)
        axis.plot(edges, edges, color=FAINT, lw=1, ls="--", zorder=1)
        axis.scatter(predicted, true, s=20, color=COLOURS[0], alpha=0.6, linewidths=0, zorder=3)
        axis.set(title="Calibration", xlabel="predicted Dice", ylabel="true Dice")
        return as_svg(figure, "True against predicted Dice, one dot a case and structure")


def risk_coverage_svg(curve: RiskCoverage) -> str:
    """Mean of 1 - Dice of the unreviewed cases by their share, beside the best and random order.

    Args:
        curve: The curve.

    Returns:
        An SVG element.
    """
    with mpl.rc_context(STYLE):
        figure, (axis,) = new_figure(5.6, 4.2, 1)
        axis.plot(
            curve.coverage,
            curve.risk,
            color=COLOURS[0],
            lw=1.8,
            label=f"by predicted quality, AURC {curve.aurc:.4f}",
        )
        axis.axhline(
            curve.random_aurc,
            color=FAINT,
            lw=1,
            ls="--",
            label=f"in random order, AURC {curve.random_aurc:.4f}",
        )
        axis.set(
            title="Risk by coverage",
            xlabel="share of the cases that is not reviewed",
            ylabel="mean of 1 - lowest Dice among them",
        )
        axis.set_xlim(0, 1)
        axis.set_ylim(bottom=0)
        axis.legend(loc="best", title=f"best possible AURC {curve.best_aurc:.4f}")
        return as_svg(figure, "Mean of 1 - Dice of the unreviewed cases by their share")
