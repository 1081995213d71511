"""Dice in the field as metrics and tags of the registered versions that made the results."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pipelines.registry.reference import Version
from pipelines.registry.versions import Registry
from pipelines.tracking.delivery import translated
from segmed.archive.review.field import FieldScore

FIELD_TAG = "field_dice"
"""Tag of a version: its Dice with accepted corrections, in words."""


def record_field_scores(registry: Registry, scores: Sequence[FieldScore]) -> dict[str, list[str]]:
    """Record scores at every registered version of their models.

    Args:
        registry: The registry.
        scores: Scores by the hash of the package.

    Returns:
        References of the versions by the hash; empty for a model that is not registered.
    """
    found: dict[str, list[str]] = {score.package: [] for score in scores}
    by_hash = {score.package: score for score in scores}
    for name in registry.names():
        for version in registry.versions(name):
            if version.hash in by_hash:
                _record(registry, version, by_hash[version.hash])
                found[version.hash].append(version.reference)
    return found


def field_lines(scores: Sequence[FieldScore], versions: Mapping[str, Sequence[str]]) -> list[str]:
    """The scores in sentences, each with the versions that it is of.

    Args:
        scores: Scores by the hash of the package.
        versions: References of the versions by the hash, as `record_field_scores` returns them.
    """
    names = {
        score.package: ", ".join(versions.get(score.package, ())) or f"model {score.package[:12]}"
        for score in scores
    }
    return [f"in the field: {names[score.package]}: {score.sentence}" for score in scores]


def _record(registry: Registry, version: Version, score: FieldScore) -> None:
    values = {
        "field_corrected": float(score.corrected),
        "field_accepted": float(score.accepted),
        "field_rejected": float(score.rejected),
        **({} if score.dice is None else {FIELD_TAG: score.dice}),
        **{f"{FIELD_TAG}.{_metric_name(key)}": value for key, value in score.dice_of.items()},
    }
    for key, value in values.items():
        translated(
            registry.uri,
            lambda key=key, value=value: registry.client.log_metric(version.run_id, key, value),  # type: ignore[misc]  # lambda
        )
    registry.set_version_tag(version, FIELD_TAG, score.sentence)


def _metric_name(label: str) -> str:
    """The name of a structure in the characters that MLflow allows."""
    return re.sub(r"[^\w\-. /]", "_", label)
