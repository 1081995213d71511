"""Tags of runs and model versions in MLflow, and the key of the scores in a package."""

from __future__ import annotations

HASH_TAG = "segmed.package_hash"
"""Tag of a version with its package's hash."""

CONTRACT_TAG = "segmed.contract"
"""Tag of a version with its contract, as JSON."""

DICE_TAG = "segmed.held_out_dice"
"""Tag of a version with its mean Dice on held-out cases, where the package has it."""

DOUBT_TAG = "segmed.nothing_learned"
"""Tag of a version whose scores on held-out cases show no learning, with the reason."""

HELD_OUT = "held_out_scores"
"""Key of the result of `pipelines.tracking.held_out` in a package's provenance."""
