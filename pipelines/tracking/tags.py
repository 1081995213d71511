"""Tags of runs and model versions in MLflow, and the key of the scores in a package."""

from __future__ import annotations

HASH_TAG = "segmed.package_hash"
"""Tag of a version that holds its package's hash."""

CONTRACT_TAG = "segmed.contract"
"""Tag of a version that holds its contract, as JSON."""

DICE_TAG = "segmed.held_out_dice"
"""Tag of a version that holds its mean Dice on held-out cases, where the package carries it."""

DOUBT_TAG = "segmed.nothing_learned"
"""Tag of a version whose scores on held-out cases show no learning; says why."""

HELD_OUT = "held_out_scores"
"""Key of a package's provenance that holds what `pipelines.tracking.held_out` gives."""
