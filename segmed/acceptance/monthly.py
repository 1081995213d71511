"""Results of an archive that reviewers judged in a period, as the cases of a dossier.

A result that was accepted as it is counts as its own reference, a corrected one is scored against
its accepted correction. A rejected result has no reference: it is counted, not scored. Reviewers
see the most doubtful results first, so no number here is a mean over the archive.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import torch

from segmed.acceptance.dossier import Dossier
from segmed.acceptance.facts import values_in
from segmed.acceptance.page import WORST, title_of
from segmed.acceptance.predicted import predicted_order
from segmed.acceptance.scoring import LocalResults
from segmed.archive.review.archive import ReviewArchive, ReviewedStudy
from segmed.archive.review.judgement import Judgement, judge_study, last_opinions
from segmed.errors import GeometryError, ImageError, UsageError
from segmed.io import grid_of
from segmed.io.dicom.acquisition import Acquisition, acquisition_at
from segmed.metatensor import MetaTensor
from segmed.metrics import CaseScore, evaluate_case, scores_table
from segmed.report import OverlayItem
from segmed.report.case_overlay import overlay_of_images

DAYS = 31
"""Days of the period that ends now, unless a month is named."""

UNREAD = "unread"
"""Reason of a judged result whose image or label map cannot be read any more."""


class NothingJudgedError(UsageError):
    """No result of the model was judged in a period."""


@dataclass(frozen=True)
class Period:
    """A span of time.

    Attributes:
        start: First moment, in s since 1970.
        end: First moment after it.
        title: The period in words.
    """

    start: float
    end: float
    title: str

    def __contains__(self, moment: float) -> bool:
        """Return whether a moment is in the period."""
        return self.start <= moment < self.end


def period_of(month: str | None, now: datetime | None = None) -> Period:
    """A calendar month, or the last `DAYS` days.

    Args:
        month: Such as `2026-11`.
        now: The present.

    Raises:
        UsageError: The month has another form.
    """
    if month is None:
        end = now or datetime.now(UTC)
        start = end - timedelta(days=DAYS)
        title = f"{start:%Y-%m-%d} to {end:%Y-%m-%d}"
        return Period(start.timestamp(), end.timestamp() + 1.0, title)
    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", month):
        raise UsageError(f"--month {month!r:.40}: write it as 2026-11")
    year, number = int(month[:4]), int(month[5:])
    start = datetime(year, number, 1, tzinfo=UTC)
    end = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)
    return Period(start.timestamp(), end.timestamp(), month)


@dataclass
class JudgedResults:
    """Judged results of an archive.

    Attributes:
        results: Scores of those that have a reference.
        counts: Results accepted as they are, corrected and rejected.
        studies: The study of each scored case.
    """

    results: LocalResults = field(default_factory=LocalResults)
    counts: dict[str, int] = field(
        default_factory=lambda: {"accepted": 0, "corrected": 0, "rejected": 0}
    )
    studies: dict[str, tuple[ReviewedStudy, int | None]] = field(default_factory=dict)


def judged_results(
    archive: ReviewArchive, package: str, period: Period, salt: bytes
) -> JudgedResults:
    """Score the results of a model that were judged in a period.

    Args:
        archive: The archive.
        package: Hash of the model; results of other models do not count.
        period: When the last verdict was given.
        salt: Secret of the site, for the pseudonyms of names of protocols.

    Raises:
        NothingJudgedError: No result was judged.
        UsageError: None of the judged results can be scored.
    """
    found = JudgedResults()
    rows: list[CaseScore] = []
    for study, judgement in _judged(archive, package, period):
        kind = "corrected" if judgement.correction is not None else judgement.state
        found.counts[kind] += 1
        if kind == "rejected":
            continue
        try:
            rows += _scored(archive, study, judgement.correction)
            _keep(found, archive, study, judgement.correction, salt)
        except (ImageError, GeometryError):
            found.results.patients[study.entry.key] = study.entry.study
            found.results.refused[study.entry.key] = UNREAD
    if not sum(found.counts.values()):
        raise NothingJudgedError(
            f"no result of this model was judged in {period.title}: `segmed review "
            f"{archive.out_dir.name}` shows the most doubtful ones"
        )
    if not rows:
        raise UsageError(
            f"none of the results judged in {period.title} can be scored: "
            f"{found.counts['rejected']} were rejected without a correction, "
            f"{len(found.results.refused)} cannot be read any more"
        )
    found.results.table = scores_table(rows)
    return found


def _judged(
    archive: ReviewArchive, package: str, period: Period
) -> Iterator[tuple[ReviewedStudy, Judgement]]:
    for study in archive.studies():
        if study.entry.package != package:
            continue
        opinions = archive.store.opinions(study.entry.key)
        judgement = judge_study(opinions)
        last = last_opinions(opinions)
        if judgement.state in {"accepted", "rejected"} and last[-1].made in period:
            yield study, judgement


def _scored(
    archive: ReviewArchive, study: ReviewedStudy, correction: int | None
) -> list[CaseScore]:
    result = archive.result(study)
    reference = result if correction is None else _corrected(archive, study, correction)
    return evaluate_case(
        torch.from_numpy(result),
        torch.from_numpy(reference),
        labels=archive.structures(study.entry).labels,
        spacing_mm=grid_of(archive.image(study)).spacing_mm,
        case_id=study.entry.key,
    )


def _corrected(
    archive: ReviewArchive, study: ReviewedStudy, number: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    corrections = {one.id: one for one in archive.store.corrections(study.entry.key)}
    return archive.corrected(study, corrections[number])


def _keep(
    found: JudgedResults,
    archive: ReviewArchive,
    study: ReviewedStudy,
    correction: int | None,
    salt: bytes,
) -> None:
    key, results = study.entry.key, found.results
    files = archive.case(study)
    results.cases.append(key)
    results.patients[key] = files.series[0].patient_key if files.series else study.entry.study
    results.values[key] = values_in(acquisition_at(files.files[0]) or Acquisition(), None, salt)
    results.measures[key] = study.entry.measures
    if "quality" in study.entry.measures:
        results.predicted[key] = predicted_order(study.entry.measures["quality"])
    results.contents[key] = study.entry.content
    results.seconds[key] = study.entry.seconds
    found.studies[key] = (study, correction)


def worst_judged(
    dossier: Dossier, judged: JudgedResults, archive: ReviewArchive, *, most: int = WORST
) -> Iterator[OverlayItem]:
    """Pictures of the corrected results with the lowest mean Dice, without names.

    Args:
        dossier: The dossier.
        judged: The results that it was made of.
        archive: The archive.
        most: How many to show.
    """
    names = {f"case {n}": case for n, case in enumerate(judged.results.cases, start=1)}
    means = dossier.table.groupby("case")["dice"].mean().dropna().sort_values(kind="stable")
    shown: Sequence[str] = [str(number) for number in means.index]
    corrected = [one for one in shown if judged.studies[names[one]][1] is not None]
    for number in corrected[:most]:
        study, correction = judged.studies[names[number]]
        assert correction is not None
        image = archive.image(study)
        maps = [
            MetaTensor(torch.from_numpy(array)[None], affine=image.affine)
            for array in (_corrected(archive, study, correction), archive.result(study))
        ]
        item = overlay_of_images(
            image,
            maps[0],
            maps[1],
            labels=archive.structures(study.entry).labels,
            caption=f"{number}: mean Dice with its correction {means[number]:.3f}",
            case=number,
            model=title_of(dossier.model),
        )
        yield replace(item, case=number)
