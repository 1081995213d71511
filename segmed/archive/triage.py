"""Triage: the studies to review first, by weighted quality flags."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from segmed.archive.ledger.tables import Entry

WEIGHTS = {
    "missing": 4.0,
    "empty": 4.0,
    "volume": 3.0,
    "disagreement": 3.0,
    "entropy": 3.0,
    "overpainted": 2.0,
    "fragments": 2.0,
    "components": 2.0,
    "shape": 2.0,
    "cut": 1.0,
    "border": 1.0,
}
"""What a flag weighs: nothing where something was due is worst, a cut edge is often the scan's."""

OTHER = 1.0

PREDICTED = 10.0
"""Priority of a result whose predicted quality is 0, on the scale of the weights."""

WORDS = {
    "missing": "absent, though usual in training",
    "empty": "nothing found",
    "volume": "volume unlike training",
    "disagreement": "folds disagree",
    "entropy": "network unsure",
    "overpainted": "two models claim it",
    "fragments": "in pieces",
    "components": "more parts than in training",
    "shape": "shape unlike training",
    "cut": "cut by the field of view",
    "border": "reaches the edge of the image",
}


MEANINGS = {
    "missing": "The structure was in nearly all training cases and is absent here.",
    "empty": "No structure was found at all.",
    "volume": "Its volume is outside the range of the training cases.",
    "disagreement": "The models of the folds gave different outlines.",
    "entropy": "The probabilities inside the structure are far from certain.",
    "overpainted": "A model of higher priority painted over a part of it.",
    "fragments": "It falls into several pieces.",
    "components": "It has more separate parts than in any training case.",
    "shape": "Its elongation or compactness is outside the range of the training cases.",
    "cut": "It touches the border of the image, which it seldom did in training.",
    "border": "It reaches the border of the image.",
    "outdated": "The image has changed since, and its newer state was refused.",
}
"""Each flag in one sentence, for reviewers."""


def review_priority(flags: Sequence[str]) -> float:
    """Return the review priority of a segmentation; 0 without flags.

    Args:
        flags: Such as `empty:anterior`.
    """
    return sum(WEIGHTS.get(flag.split(":", 1)[0], OTHER) for flag in flags)


def priority_of(measures: Mapping[str, Any]) -> float:
    """Return the review priority of a result: by its predicted quality, else by its flags.

    Args:
        measures: What was measured, with `quality` where the model predicts it.
    """
    quality = measures.get("quality")
    if quality is not None:
        return PREDICTED * (1.0 - float(quality["score"]))
    return review_priority(measures.get("flags", ()))


def in_words(flags: Sequence[str]) -> str:
    """Flags by structure, for people: `anterior: nothing found; posterior: in pieces`."""
    by_label: dict[str, list[str]] = {}
    for flag in flags:
        code, _, label = flag.partition(":")
        word = WORDS.get(code, code)
        if word not in by_label.setdefault(label, []):
            by_label[label].append(word)
    return "; ".join(f"{label}: {', '.join(words)}" for label, words in by_label.items())


def quality_in_words(quality: Mapping[str, Any] | None) -> str:
    """Predicted Dice of the structure of the lowest, with its interval: `0.81 (0.74 to 0.88)`."""
    if quality is None:
        return ""
    name, item = min(quality["structures"].items(), key=lambda pair: float(pair[1]["dice"]))
    stated = "" if item["low"] is None else f" ({item['low']:.2f} to {item['high']:.2f})"
    return f"{name} {item['dice']:.2f}{stated}"


def by_review_priority(entries: Iterable[Entry], number: int) -> list[Entry]:
    """The worst of the segmented studies, at most `number` of them in memory."""
    return heapq.nsmallest(
        number,
        entries,
        key=lambda entry: (-priority_of(entry.measures), entry.key),
    )
