"""Names of the features of a segmentation, and those of one case by structure.

Without PyTorch, which only gathering them needs.
"""

from __future__ import annotations

import numpy as np

EXPECTED_DICE = "expected_dice"
ENTROPY = "entropy"
AGREEMENT = "agreement"
FEATURES = (EXPECTED_DICE, ENTROPY, "spread", "excess", "log_volume", "log_surface")
"""Features of every model; those of each channel and the members' agreement come besides."""

OF_CASE = "case:"
"""Prefix of the mean of a feature over the structures of a case."""

CaseFeatures = dict[str, dict[str, float]]
"""Features by structure; none for a structure that is absent."""


def with_case_means(features: CaseFeatures) -> CaseFeatures:
    """The features of each structure, and their means over all present ones under `case:NAME`.

    The parts of a poor image share its faults, so the others tell something of each.
    """
    present = [row for row in features.values() if row]
    names = set(present[0]).intersection(*present) if present else set()
    means = {f"{OF_CASE}{name}": float(np.mean([row[name] for row in present])) for name in names}
    return {label: {**row, **means} if row else {} for label, row in features.items()}
