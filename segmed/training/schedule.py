"""The learning rate as a function of the share of the budget that is spent."""

from __future__ import annotations

import math

from segmed.plan.schema import Recipe

POLY_POWER = 0.9
"""Exponent of the polynomial decay; Isensee et al. 2021."""

FINAL_SHARE = 0.01
"""Cosine decay ends at this share of the peak."""


def learning_rate(recipe: Recipe, peak: float, progress: float) -> float:
    """Linear warm-up, then decay that ends with the budget.

    Args:
        recipe: Names the schedule and the share spent in warm-up.
        peak: Highest learning rate.
        progress: Share of the budget that is spent, 0 to 1.

    Returns:
        The learning rate.
    """
    if progress < recipe.warmup:
        return peak * max(progress / recipe.warmup, FINAL_SHARE)
    position = (progress - recipe.warmup) / max(1.0 - recipe.warmup, 1e-9)
    if recipe.schedule == "poly":
        return float(peak * (1.0 - min(position, 0.999)) ** POLY_POWER)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(position, 1.0)))
    return peak * (FINAL_SHARE + (1.0 - FINAL_SHARE) * cosine)
