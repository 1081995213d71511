"""Dice between the label maps of reviewers and models, for each structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from segmed.archive.review.archive import ReviewArchive, ReviewedStudy
from segmed.archive.review.judgement import label_words, last_opinions
from segmed.structures import LabelClass


@dataclass(frozen=True)
class MapAgreement:
    """Overlap of two label maps of one study.

    Attributes:
        first: Whose the one is, in words.
        second: Whose the other is.
        dice: Dice of each structure; None where neither has it.
    """

    first: str
    second: str
    dice: dict[str, float | None]


def dice_by_structure(
    one: npt.NDArray[Any], other: npt.NDArray[Any], labels: Sequence[LabelClass]
) -> dict[str, float | None]:
    """Dice of each structure in two label maps on one grid; None where neither has it."""
    found: dict[str, float | None] = {}
    for label in labels:
        first, second = np.asarray(label.mask(one)), np.asarray(label.mask(other))
        total = int(first.sum()) + int(second.sum())
        found[label.name] = 2.0 * int((first & second).sum()) / total if total else None
    return found


def mean_dice(dice: dict[str, float | None]) -> float | None:
    """Mean over the structures that are in either label map; None without any."""
    present = [value for value in dice.values() if value is not None]
    return sum(present) / len(present) if present else None


def agreements(archive: ReviewArchive, study: ReviewedStudy) -> list[MapAgreement]:
    """Dice between every two label maps that reviewers accepted, and with the model's result.

    Args:
        archive: The archive.
        study: The study.
    """
    opinions = last_opinions(archive.store.opinions(study.entry.key))
    corrections = {one.id: one for one in archive.store.corrections(study.entry.key)}
    maps: dict[int | None, str] = {None: "the model"}
    for opinion in opinions:
        if opinion.verdict == "accepted" and opinion.correction is not None:
            author = corrections[opinion.correction].author
            maps[opinion.correction] = f"{author} ({label_words(opinion.correction)})"
    last_drafts = {one.author: one for one in corrections.values()}
    for draft in last_drafts.values():
        maps.setdefault(draft.id, f"{draft.author} ({label_words(draft.id)})")
    labels = archive.structures(study.entry).labels
    arrays = {
        number: archive.result(study)
        if number is None
        else archive.corrected(study, corrections[number])
        for number in maps
    }
    return [
        MapAgreement(maps[one], maps[other], dice_by_structure(arrays[one], arrays[other], labels))
        for one, other in combinations(maps, 2)
    ]
