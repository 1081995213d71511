"""Measures that criteria are about, from the parts of a dossier.

A measure that is not known has a reason in its place, which the verdict states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from segmed.acceptance.archive_facts import ArchiveFacts
from segmed.acceptance.bound import StatedBound
from segmed.acceptance.criteria import LOSS, NOT_MEASURED, Fact
from segmed.acceptance.groups import FEWEST_CASES, GroupRow
from segmed.acceptance.scoring import LocalResults
from segmed.acceptance.shift import ScoreRow
from segmed.archive.drift import MIN_STUDIES, DriftRow, num_judged
from segmed.metrics.score import MEAN_LABEL, METRICS

NO_CARD = "not judged: the package keeps no scores of held-out cases"
NO_NORMS = "not judged: the package keeps no distributions of its training"
NO_STUDIES = "not known: the archive has no study of the model in this time"
NO_REVIEWS = "not known: reviewers judge results, so only a monthly dossier has it"
WITHDRAWN = "not known: the bound is withdrawn"


def site_facts(
    results: LocalResults,
    scores: Sequence[ScoreRow],
    groups: Sequence[GroupRow],
    drift: Fact,
    archive: ArchiveFacts | None,
    *,
    is_monthly: bool,
) -> dict[tuple[str, str], Fact]:
    """Numbers, shares and findings of the whole site.

    Args:
        results: Scores of the local cases.
        scores: These beside the card.
        groups: Groups of cases beside the rest.
        drift: From `drift_fact`.
        archive: Outcomes of the archive.
        is_monthly: Whether the cases are judged results of the archive.
    """
    table = results.table[~results.table["is_region"].astype(bool)]
    table = table if len(table) else results.table
    counts = {
        name: int(table[name].astype(bool).sum())
        for name in ("missed", "false_positive", "both_empty")
    }
    absent = counts["false_positive"] + counts["both_empty"]
    present = len(table) - absent
    seconds, memory = mean_seconds(results), results.memory_mb
    return {
        ("cases", ""): float(len(results.cases)),
        ("patients", ""): float(len({results.patients[case] for case in results.cases})),
        ("missed", ""): counts["missed"] / present if present else 0.0,
        ("invented", ""): counts["false_positive"] / absent if absent else 0.0,
        ("refused", ""): _refused_share(results, archive, is_monthly=is_monthly),
        ("groups", ""): float(len({(r.kind, r.value) for r in groups if r.is_worse})),
        ("shifts", ""): _shifts(scores),
        ("drift", ""): drift,
        ("seconds", ""): NOT_MEASURED if seconds is None else seconds,
        ("memory_mb", ""): NOT_MEASURED if memory is None else memory,
    }


def mean_seconds(results: LocalResults) -> float | None:
    """Mean wall time of a case, in s; None where none was measured."""
    return sum(results.seconds.values()) / len(results.seconds) if results.seconds else None


def drift_fact(drift: Sequence[DriftRow] | None, archive: ArchiveFacts | None) -> Fact:
    """Number of features that drifted, of the local cases and of the archive's last run.

    Args:
        drift: Features of the local cases beside the training; None without distributions.
        archive: Outcomes of the archive.

    Returns:
        The number; the reason where neither has the cases that show drift, unless the share of
        refused ones alone raises the alarm.
    """
    judged = [rows for rows in (drift, archive.drift if archive else None) if rows]
    alarms = sum(row.is_alarm for rows in judged for row in rows)
    most = max(map(num_judged, judged), default=0)
    if alarms or most >= MIN_STUDIES:
        return float(alarms)
    return NO_NORMS if not judged else f"not judged ({most} cases, at least {MIN_STUDIES} needed)"


def uncompared(groups: Sequence[GroupRow]) -> str:
    """Reason why no group was compared with the rest; empty where one was."""
    if any(row.p_value is not None for row in groups):
        return ""
    if not groups:
        return "no scanner, protocol, age or sex is stated in headers or manifest"
    if not any(row.n_rest for row in groups):
        return "all cases have the same scanner, protocol, age decade and sex, where stated"
    return f"no group and its rest have {FEWEST_CASES} cases each"


def _shifts(scores: Sequence[ScoreRow]) -> Fact:
    if all(row.card is None for row in scores):
        return NO_CARD
    if all(row.p_value is None for row in scores):
        return "not judged: too few cases to test a difference from the card"
    return float(len(shifted_structures(scores)))


def shifted_structures(scores: Sequence[ScoreRow]) -> set[str]:
    """Structures that are scored worse than on the card; `mean` only where no other is."""
    found = {row.label for row in scores if row.is_shift}
    return found - {MEAN_LABEL} or found


def _refused_share(
    results: LocalResults, archive: ArchiveFacts | None, *, is_monthly: bool
) -> Fact:
    """Share of refused and failed cases: of the archive in a month, of the local cases else."""
    if not is_monthly:
        return len(results.refused) / (len(results.refused) + len(results.cases))
    if archive is None or not archive.studies:
        return NO_STUDIES
    return sum(archive.reasons.values()) / archive.studies


def bound_fact(bound: StatedBound) -> dict[tuple[str, str], Fact]:
    """Upper bound of the share of bad results."""
    return {("below", ""): WITHDRAWN if bound.withdrawn else bound.upper}


def judged_facts(judged: Mapping[str, int]) -> dict[tuple[str, str], Fact]:
    """Shares of the results that reviewers judged."""
    total = sum(judged.values())
    return {
        (name, ""): judged.get(name, 0) / total if total else NO_REVIEWS
        for name in ("corrected", "rejected")
    }


def structure_facts(scores: Sequence[ScoreRow]) -> dict[tuple[str, str], Fact]:
    """Unfavourable end of the interval of each mean, and of its loss against the card."""
    better = {metric.name: metric.higher_is_better for metric in METRICS}
    found: dict[tuple[str, str], Fact] = {}
    for row in scores:
        end = row.ci_low if better[row.metric] else row.ci_high
        found[row.metric, row.label] = _unless(end, "not known: too few cases for an interval")
        found[f"{row.metric}{LOSS}", row.label] = _unless(row.loss_high, _why_no_loss(row))
    for name in {name for name, _ in found}:
        values = [value for (other, _), value in found.items() if other == name]
        known = [value for value in values if not isinstance(value, str)]
        if (name, MEAN_LABEL) not in found:  # regions alone
            worst = (min if better.get(name, False) else max)(known, default=None)
            unknown = next((value for value in values if isinstance(value, str)), None)
            found[name, MEAN_LABEL] = unknown or _unless(worst, NOT_MEASURED)
    return found


def _unless(value: float | None, reason: str) -> Fact:
    return reason if value is None else value


def _why_no_loss(row: ScoreRow) -> str:
    if row.mean is None:
        return "not known: nothing was scored here"
    if row.card is None:
        return "not known: the package keeps no such score of held-out cases"
    return "not known: too few cases for an interval"
