"""Evidence in a table of scores that a training learned anything."""

from __future__ import annotations

import pandas as pd

from segmed.metrics.resample import bootstrap_means, interval

LEARNED_DICE = 0.1
"""Mean Dice on held-out cases below which a training is said to have learned nothing."""


def mean_dice_of(table: pd.DataFrame) -> float:
    """Mean Dice over cases, each the mean over its scored structures; NaN without any."""
    return float(_dice_of_cases(_labels(table)).mean())


def doubt_of_learning(table: pd.DataFrame) -> str | None:
    """Reason why scores are no sign of learning; None where they are one.

    A model has learned something if its mean Dice reaches `LEARNED_DICE`, and if it is better, case
    by case, than a segmentation that is everywhere the same structure: where one fills most of
    the image, that alone has a high Dice. The lower end of the bootstrap interval of the gain must
    be above 0.

    Args:
        table: Scores of held-out cases, as from `scores_table`; a table without `voxels_image`, as
            older versions wrote, is compared with `LEARNED_DICE` alone.
    """
    labels = _labels(table)
    found = _dice_of_cases(labels)
    if not len(found) or found.isna().all():
        return "no structure of a held-out case could be scored"
    mean = float(found.mean())
    if mean < LEARNED_DICE:
        return f"the mean Dice on held-out cases is {mean:.3f}, below {LEARNED_DICE}"
    if "voxels_image" not in labels.columns:
        return None
    name, constant = _best_constant(labels)
    gains = (found - constant).dropna().to_numpy(dtype=float)
    (low,), _ = interval(bootstrap_means(gains[:, None]))
    if low > 0.0:
        return None
    return (
        f"the mean Dice on held-out cases is {mean:.3f}, and an image filled with {name} alone has "
        f"{float(constant.mean()):.3f}"
    )


def _labels(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of single structures."""
    return table[~table["is_region"].astype(bool)]


def _dice_of_cases(labels: pd.DataFrame) -> pd.Series:
    scored = labels[~labels["both_empty"].astype(bool)]
    return scored.groupby("case")["dice"].mean()


def _best_constant(labels: pd.DataFrame) -> tuple[str, pd.Series]:
    """The structure whose value everywhere scores best, and its Dice in each case."""
    share = labels["voxels_reference"] / labels["voxels_image"]
    found = {}
    for name in labels["label"].unique():
        is_it = labels["label"] == name
        dice = (2.0 * share / (1.0 + share)).where(is_it, 0.0)
        is_scored = is_it | (labels["voxels_reference"] > 0)
        found[str(name)] = dice[is_scored].groupby(labels["case"][is_scored]).mean()
    best = max(found, key=lambda name: float(found[name].mean()))
    return best, found[best]
