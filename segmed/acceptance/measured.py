"""Measures that criteria are about, from the parts of a dossier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from segmed.acceptance.archive_facts import ArchiveFacts
from segmed.acceptance.groups import GroupRow
from segmed.acceptance.scoring import LocalResults
from segmed.acceptance.shift import ScoreRow
from segmed.archive.drift import DriftRow
from segmed.metrics.score import MEAN_LABEL, METRICS


def site_facts(
    results: LocalResults,
    scores: Sequence[ScoreRow],
    groups: Sequence[GroupRow],
    drift: Sequence[DriftRow] | None,
    archive: ArchiveFacts | None,
    *,
    is_monthly: bool,
) -> dict[tuple[str, str], float | None]:
    """Numbers, shares and findings of the whole site."""
    table = results.table[~results.table["is_region"].astype(bool)]
    table = table if len(table) else results.table
    counts = {
        name: int(table[name].astype(bool).sum())
        for name in ("missed", "false_positive", "both_empty")
    }
    absent = counts["false_positive"] + counts["both_empty"]
    present = len(table) - absent
    alarms = [*(drift or ()), *(archive.drift if archive else ())]
    has_card = any(row.p_value is not None for row in scores)
    return {
        ("cases", ""): float(len(results.cases)),
        ("missed", ""): counts["missed"] / present if present else 0.0,
        ("invented", ""): counts["false_positive"] / absent if absent else 0.0,
        ("refused", ""): _refused_share(results, archive, is_monthly=is_monthly),
        ("groups", ""): float(len({(r.kind, r.value) for r in groups if r.is_worse})),
        ("shifts", ""): float(len(shifted_structures(scores))) if has_card else None,
        ("drift", ""): float(sum(row.is_alarm for row in alarms)) if drift is not None else None,
    }


def shifted_structures(scores: Sequence[ScoreRow]) -> set[str]:
    """Structures that are scored worse than on the card; `mean` only where no other is."""
    found = {row.label for row in scores if row.is_shift}
    return found - {MEAN_LABEL} or found


def _refused_share(
    results: LocalResults, archive: ArchiveFacts | None, *, is_monthly: bool
) -> float | None:
    """Share of refused and failed cases: of the archive in a month, of the local cases else."""
    if not is_monthly:
        return len(results.refused) / (len(results.refused) + len(results.cases))
    if archive is None or not archive.studies:
        return None
    return sum(archive.reasons.values()) / archive.studies


def judged_facts(judged: Mapping[str, int]) -> dict[tuple[str, str], float | None]:
    """Shares of the results that reviewers judged."""
    total = sum(judged.values())
    return {
        (name, ""): judged.get(name, 0) / total if total else None
        for name in ("corrected", "rejected")
    }


def structure_facts(scores: Sequence[ScoreRow]) -> dict[tuple[str, str], float | None]:
    """Unfavourable end of the interval of each mean, and of its loss against the card."""
    better = {metric.name: metric.higher_is_better for metric in METRICS}
    found: dict[tuple[str, str], float | None] = {}
    for row in scores:
        found[row.metric, row.label] = row.ci_low if better[row.metric] else row.ci_high
        found[f"{row.metric}_loss", row.label] = row.loss_high
    for name in {name for name, _ in found}:
        values = [value for (other, _), value in found.items() if other == name]
        known = [value for value in values if value is not None]
        if (name, MEAN_LABEL) not in found and len(known) == len(values):  # regions alone
            found[name, MEAN_LABEL] = (min if better.get(name, False) else max)(known)
    return found
