"""Fingerprints of six real image sets, as recorded from their files: facts, no images."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from segmed.manifest import Channel, LabelClass, Manifest
from segmed.plan.fingerprint import Fingerprint

RECORDED = Path(__file__).with_name("fingerprints.json")
SETS = (
    "left_atrium",
    "hippocampus",
    "cardiac_mr",
    "brain_many_labels",
    "isbi2012",
    "chase_db1",
)


@cache
def real_facts(name: str) -> tuple[Manifest, Fingerprint]:
    """A manifest without cases, and the facts of the training cases."""
    record = json.loads(RECORDED.read_text(encoding="utf-8"))[name]
    labels = zip(record.pop("labels"), record.pop("values"), strict=True)
    channels = [Channel(**channel) for channel in record.pop("channels")]
    manifest = Manifest(
        name=name,
        labels=tuple(LabelClass(name=label, value=value) for label, value in labels),
        channels=tuple(channels),
        training=(),
        root=Path(),
    )
    return manifest, Fingerprint(**{name: tuples(value) for name, value in record.items()})


def tuples(value: Any) -> Any:
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value
