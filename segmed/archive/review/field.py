"""Dice in the field: results of a model beside the label maps that reviewers accepted."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from segmed.archive.review.agreement import dice_by_structure, mean_dice
from segmed.archive.review.archive import ReviewArchive
from segmed.archive.review.judgement import judge_study
from segmed.errors import GeometryError, ImageError
from segmed.io.atomic import write_whole

FIELD_FILE = "field_scores.json"
"""Scores of each model of an archive, beside its ledger."""


@dataclass(frozen=True)
class FieldScore:
    """Agreement of a model with its reviewers.

    Attributes:
        package: Hash of the model package.
        accepted: Results that were accepted as they are.
        corrected: Results whose correction was accepted.
        rejected: Results that were rejected, without an accepted correction.
        dice: Mean Dice of the corrected results with their corrections, over cases and structures;
            None without any. Results that were accepted as they are do not enter: reviewers
            correct the worst, so neither number is a mean over the archive.
        dice_of: The same of each structure.
        unread: Corrected results that could not be read.
    """

    package: str
    accepted: int
    corrected: int
    rejected: int
    dice: float | None
    dice_of: dict[str, float]
    unread: int = 0

    @property
    def sentence(self) -> str:
        """The score in words."""
        number = "no correction" if self.dice is None else f"Dice {self.dice:.3f}"
        return (
            f"{number} with {self.corrected} accepted corrections; {self.accepted} accepted as "
            f"they are, {self.rejected} rejected"
        )


def field_scores(archive: ReviewArchive) -> list[FieldScore]:
    """Score of each model whose results were judged, by the hash of its package."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    pairs: dict[str, list[dict[str, float | None]]] = defaultdict(list)
    for study in archive.studies():
        entry = study.entry
        judgement = judge_study(archive.store.opinions(entry.key))
        if judgement.state == "rejected":
            counts[entry.package]["rejected"] += 1
        elif judgement.state == "accepted" and judgement.correction is None:
            counts[entry.package]["accepted"] += 1
        elif judgement.state == "accepted":
            corrections = {one.id: one for one in archive.store.corrections(entry.key)}
            counts[entry.package]["corrected"] += 1
            try:
                correction = archive.corrected(study, corrections[judgement.correction or 0])
                labels = archive.structures(entry).labels
                pairs[entry.package].append(
                    dice_by_structure(archive.result(study), correction, labels)
                )
            except (ImageError, GeometryError):
                counts[entry.package]["unread"] += 1
    return [_score(package, dict(found), pairs[package]) for package, found in counts.items()]


def _score(
    package: str, counts: dict[str, int], pairs: list[dict[str, float | None]]
) -> FieldScore:
    by_name: dict[str, list[float]] = defaultdict(list)
    for pair in pairs:
        for name, value in pair.items():
            if value is not None:
                by_name[name].append(value)
    means = [value for value in map(mean_dice, pairs) if value is not None]
    return FieldScore(
        package=package,
        accepted=counts.get("accepted", 0),
        corrected=counts.get("corrected", 0),
        rejected=counts.get("rejected", 0),
        dice=sum(means) / len(means) if means else None,
        dice_of={name: sum(values) / len(values) for name, values in by_name.items()},
        unread=counts.get("unread", 0),
    )


def write_field_scores(out_dir: Path, scores: list[FieldScore]) -> Path:
    """Write the scores beside the ledger, for the page of the next run."""
    content = {score.package: asdict(score) for score in scores}
    return write_whole(out_dir / FIELD_FILE, json.dumps(content, indent=1))


def read_field_score(out_dir: Path, package: str) -> FieldScore | None:
    """The score of a model that was written before; None without one."""
    try:
        content = json.loads((out_dir / FIELD_FILE).read_bytes())
        return FieldScore(**content[package])
    except (OSError, ValueError, KeyError, TypeError):
        return None
