"""Records of several sites as one table of paired scores; doubtful ones are refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from segmed.acceptance.evidence import EvidenceRow, RowScores, SignedEvidence, read_evidence
from segmed.acceptance.order import in_score_order
from segmed.errors import UsageError
from segmed.metrics.summary import RECORDED_METRICS


@dataclass(frozen=True)
class PooledSite:
    """One record of a pool.

    Attributes:
        file: Its file.
        site: Name of the site: begin of the digest of its public key.
        cases: Cases in it.
        patients: Patients in it.
        refused: Refused and failed cases.
        groups: Groups of cases that are scored worse than the rest of the site.
        shifts: Structures scored worse than on the card.
        drift: Features that drifted; None where that is not known.
    """

    file: str
    site: str
    cases: int
    patients: int
    refused: int
    groups: int
    shifts: int
    drift: int | None


@dataclass(frozen=True)
class Pool:
    """Records that belong together.

    Attributes:
        model: Hash of the model.
        against: Hash of the model that it is compared with; None without one.
        sites: The records.
        tables: Scores of `model`, and of `against` if there is one, case by case.
        seconds: Seconds a case of each.
        is_known: Whether the signers were checked against a list.
    """

    model: str
    against: str | None
    sites: tuple[PooledSite, ...]
    tables: Mapping[str, pd.DataFrame] = field(repr=False)
    seconds: Mapping[str, float]
    is_known: bool


MODEL, AGAINST = "model", "against"
"""Names of the two tables of a pool."""


def pool_records(
    paths: Sequence[Path], *, model: str | None = None, known: Sequence[str] | None = None
) -> Pool:
    """Read records of several sites and put them together.

    Args:
        paths: The files.
        model: Hash of the model that they must be of; that of the first record if not given.
        known: Sites whose records are taken; all that are signed if not given.

    Raises:
        UsageError: A record was changed, is of an unknown site or another model, was hashed with
            another study's key, occurs twice, or shares cases with another one. The file is named.
    """
    if not paths:
        raise UsageError("give the records of the sites to pool: segmed accept --pool A B C")
    records = {path: read_evidence(path) for path in paths}
    if len(records) != len(paths):
        twice = next(path for path in paths if list(paths).count(path) > 1)
        raise UsageError(f"{twice} is given twice: each record counts once")
    _require_known(records, known)
    _require_one_study(records, model)
    _require_different(records)
    first = next(iter(records.values())).evidence
    names = [MODEL] if first.against is None else [MODEL, AGAINST]
    joint = in_score_order(_table([row for one in records.values() for row in one.evidence.rows]))
    return Pool(
        model=first.model,
        against=first.against,
        sites=tuple(_site(path, one) for path, one in records.items()),
        tables={name: _of(joint, name) for name in names},
        seconds={
            name: seconds for name in names if (seconds := _seconds(records, name)) is not None
        },
        is_known=known is not None,
    )


def _require_known(records: Mapping[Path, SignedEvidence], known: Sequence[str] | None) -> None:
    for path, one in records.items():
        if known is not None and one.site not in known:
            raise UsageError(
                f"{path} is signed by {one.site}, which is not among the known sites "
                f"{', '.join(known) or 'none'}"
            )


def _require_one_study(records: Mapping[Path, SignedEvidence], model: str | None) -> None:
    first_path, first = next(iter(records.items()))
    wanted = model or first.evidence.model
    for path, one in records.items():
        found = one.evidence
        if found.model != wanted:
            raise UsageError(
                f"{path} is a record of another model ({found.model[:12]}), needed {wanted[:12]}"
            )
        if found.against != first.evidence.against:
            raise UsageError(
                f"{path} and {first_path} compare the model with different models "
                f"({_short(found.against)} and {_short(first.evidence.against)})"
            )
        if odd := _labels(one) ^ _labels(first):
            raise UsageError(
                f"{path} and {first_path} score different structures: {', '.join(sorted(odd))} "
                "are in one only"
            )
        if found.study_key != first.evidence.study_key:
            raise UsageError(
                f"{path} and {first_path} were hashed with different study keys "
                f"({found.study_key} and {first.evidence.study_key}): whether they share cases "
                "cannot be seen; give all sites one study key"
            )


def _require_different(records: Mapping[Path, SignedEvidence]) -> None:
    """Refuse a record that occurs twice, and cases that are in two records."""
    seen: dict[str, Path] = {}
    owner: dict[str, Path] = {}
    for path, one in records.items():
        number = one.evidence.record
        if number in seen:
            raise UsageError(
                f"{path} and {seen[number]} are the same record: each site counts once"
            )
        seen[number] = path
        shared = [case for case in one.evidence.cases if case in owner]
        if shared:
            other = owner[min(shared)]
            same = records[other].site == one.site
            whose = (
                f"one site ({one.site})"
                if same
                else f"two sites ({records[other].site}, {one.site})"
            )
            raise UsageError(
                f"{path} and {other}, records of {whose}, have {len(shared)} cases in common: each "
                "case counts once"
            )
        owner |= dict.fromkeys(one.evidence.cases, path)


def _labels(one: SignedEvidence) -> set[str]:
    return {row.label for row in one.evidence.rows}


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]


def _site(path: Path, one: SignedEvidence) -> PooledSite:
    found = one.evidence
    return PooledSite(
        file=path.name,
        site=one.site,
        cases=len(found.cases),
        patients=found.patients,
        refused=sum(found.refused.values()),
        groups=found.groups,
        shifts=found.shifts,
        drift=found.drift,
    )


def _seconds(records: Mapping[Path, SignedEvidence], name: str) -> float | None:
    """Mean time of a case over all sites."""
    pairs = [
        (len(found.cases), found.seconds if name == MODEL else found.against_seconds)
        for found in (one.evidence for one in records.values())
    ]
    known = [(number, seconds) for number, seconds in pairs if seconds is not None]
    total = sum(number for number, _ in known)
    return sum(number * seconds for number, seconds in known) / total if total else None


def _table(rows: Sequence[EvidenceRow]) -> pd.DataFrame:
    """One row a case and structure, the scores of both models beside each other."""
    return pd.DataFrame(
        {
            "case": row.case,
            "label": row.label,
            "is_region": row.is_region,
            **_columns(row.model, ""),
            **({} if row.against is None else _columns(row.against, "against_")),
        }
        for row in rows
    )


def _columns(scores: RowScores, prefix: str) -> dict[str, object]:
    values = {name: scores.values.get(name, float("nan")) for name in RECORDED_METRICS}
    flags = {
        "missed": scores.missed,
        "false_positive": scores.false_positive,
        "both_empty": scores.both_empty,
        "substituted": scores.missed or scores.false_positive,
    }
    return {f"{prefix}{name}": value for name, value in {**values, **flags}.items()}


def _of(joint: pd.DataFrame, name: str) -> pd.DataFrame:
    """The table of one model."""
    mine = [column for column in joint.columns if not column.startswith("against_")]
    if name == MODEL:
        return joint[mine]
    shared = ["case", "label", "is_region"]
    other = joint[[column for column in joint.columns if column.startswith("against_")]]
    return joint[shared].join(other.rename(columns=lambda text: text.removeprefix("against_")))
