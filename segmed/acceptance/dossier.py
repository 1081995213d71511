"""Dossier of a model at a site: everything that a verdict rests on, as plain values without names.

Cases are numbered in the order of the manifest; which number is which case is written to a file of
its own, readable to its owner alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import pandas as pd

from segmed.acceptance.archive_facts import ArchiveFacts
from segmed.acceptance.bound import ReviewRule, StatedBound, state_bound
from segmed.acceptance.calibration import Calibration, calibrate
from segmed.acceptance.criteria import NOT_MEASURED, Criteria, CriterionLine, Fact, apply
from segmed.acceptance.facts import shown_values
from segmed.acceptance.groups import GroupRow, compare_groups
from segmed.acceptance.measured import (
    bound_fact,
    drift_fact,
    judged_facts,
    mean_seconds,
    site_facts,
    structure_facts,
    uncompared,
)
from segmed.acceptance.order import in_score_order
from segmed.acceptance.scoring import LocalResults
from segmed.acceptance.shift import ScoreRow, scores_beside_card
from segmed.archive.drift import DriftRow, watch
from segmed.metrics.learned import doubt_of_learning
from segmed.metrics.measures import Distributions, add_features
from segmed.metrics.score import MEAN_LABEL
from segmed.version import __version__

SCHEMA_VERSION = 1
DIGITS = 6


@dataclass(frozen=True)
class AssessedModel:
    """The model of a dossier.

    Attributes:
        hash: Hash of its package; of an ensemble, of its packages' hashes.
        title: Architecture and image set.
        name: Registered name, where it comes from a registry.
        version: Its version there.
        card: Scores on cases kept out of training; None where the package keeps none.
        norms: Features of the training cases; empty where the package keeps none.
        parameters: Number of parameters.
        threshold: Predicted quality under which a case is reviewed; None without a prediction.
        review: Share of the cases that this is expected to be.
        risk: Share of bad results that the package promises at most; None where it does not.
    """

    hash: str
    title: str
    name: str | None = None
    version: str | None = None
    card: Mapping[str, Any] | None = field(default=None, repr=False)
    norms: Distributions = field(default_factory=dict, repr=False)
    parameters: int | None = None
    threshold: float | None = None
    review: float = 0.0
    risk: float | None = None


@dataclass(frozen=True)
class Dossier:
    """A dossier.

    Attributes:
        model: The model.
        created: When, UTC.
        months: Period of a monthly dossier, in words; empty for one before go-live.
        patients: Patients of the scored cases.
        refused: Refused and failed cases by reason code.
        scores: Local scores beside those of the card.
        groups: Groups of cases beside the rest.
        drift: Features of images and results beside the training; None where the package keeps no
            distributions.
        baseline: Values of each feature over the local cases, sorted.
        archive: Outcomes of the archive; None without one.
        seconds: Mean time of a case, in s.
        memory_mb: Largest memory.
        bound: Bound on bad results.
        accept: Criteria applied.
        stop: Stop rules applied.
        table: Scores by case number and structure.
        copies: Cases whose image is that of another case.
        judged: Counts of a monthly dossier: results accepted, corrected and rejected.
        drifted: Number of features that drifted, here and in the archive; or the reason why that
            is not known.
        calibration: Predicted quality beside the local scores; None where none is predicted.
        doubt: Reason why the local scores are no sign of learning; None where they are.
    """

    model: AssessedModel
    created: str
    months: str
    patients: int
    refused: dict[str, int]
    scores: list[ScoreRow]
    groups: list[GroupRow]
    drift: list[DriftRow] | None
    baseline: dict[str, list[float]]
    archive: ArchiveFacts | None
    seconds: float | None
    memory_mb: float | None
    bound: StatedBound
    accept: list[CriterionLine]
    stop: list[CriterionLine]
    table: pd.DataFrame = field(repr=False)
    copies: int = 0
    judged: dict[str, int] = field(default_factory=dict)
    drifted: Fact = NOT_MEASURED
    calibration: Calibration | None = None
    doubt: str | None = None

    @property
    def cases(self) -> int:
        """Scored cases."""
        return int(self.table["case"].nunique())

    @property
    def stopped_by(self) -> list[CriterionLine]:
        """Stop rules whose limit is crossed; a value that is not known crosses none."""
        return [line for line in self.stop if line.value is not None and not line.is_fulfilled]

    @property
    def is_accepted(self) -> bool:
        """True if it has learned, all criteria are fulfilled and no stop rule is crossed."""
        return not self.reasons

    @property
    def findings(self) -> list[str]:
        """Worse groups, shifts and drift in words; any of them withdraws the bound."""
        return list(self.bound.withdrawn)

    @property
    def unjudged(self) -> list[str]:
        """Findings that nothing here could show, whatever the criteria ask for, in words."""
        drift = [f"drift: {self.drifted}"] if isinstance(self.drifted, str) else []
        why = uncompared(self.groups)
        return [*drift, *([f"groups: not compared ({why})"] if why else [])]

    @property
    def reasons(self) -> list[str]:
        """Reasons why the model is not accepted; empty where it is."""
        doubt = [] if self.doubt is None else [f"nothing was learned: {self.doubt}"]
        unmet = [line.sentence for line in self.accept if not line.is_fulfilled]
        return [*doubt, *unmet, *(f"stop rule: {line.sentence}" for line in self.stopped_by)]

    def record(self) -> dict[str, Any]:
        """The dossier as JSON values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "segmed acceptance dossier",
            "segmed": __version__,
            "created": self.created,
            "period": self.months or None,
            "model": {
                "hash": self.model.hash,
                "title": self.model.title,
                "name": self.model.name,
                "version": self.model.version,
            },
            "verdict": {
                "accepted": self.is_accepted,
                "reasons": self.reasons,
                "criteria": [asdict(line) for line in self.accept],
                "stop_rules": [asdict(line) for line in self.stop],
            },
            "bound": asdict(self.bound),
            "findings": self.findings,
            "not_judged": self.unjudged,
            "cases": self.cases,
            "patients": self.patients,
            "copies": self.copies,
            "judged": self.judged,
            "refused": self.refused,
            "scores": [asdict(row) for row in self.scores],
            "groups": [asdict(row) for row in self.groups],
            "drift": None if self.drift is None else [asdict(row) for row in self.drift],
            "drift_baseline": self.baseline,
            "calibration": _calibration_record(self.calibration),
            "archive": None if self.archive is None else asdict(self.archive),
            "cost": {"seconds_per_case": self.seconds, "peak_memory_mb": self.memory_mb},
            "case_scores": _case_scores(self.table),
        }


def make_dossier(
    model: AssessedModel,
    results: LocalResults,
    criteria: Criteria,
    *,
    archive: ArchiveFacts | None = None,
    months: str = "",
    judged: Mapping[str, int] | None = None,
) -> Dossier:
    """Judge the results of a model at a site.

    Args:
        model: The model.
        results: Scores and measures of the local cases.
        criteria: Criteria and stop rules.
        archive: Outcomes of an archive that the model segmented.
        months: Period, in words, of a monthly dossier.
        judged: Its counts of judged results.

    Raises:
        MetricError: Nothing could be scored.
    """
    numbers = {case: f"case {place}" for place, case in enumerate(results.cases, start=1)}
    scores = scores_beside_card(in_score_order(results.table), model.card)
    groups = compare_groups(results.table, shown_values(results.values, results.patients))
    current: Distributions = {}
    for measured in results.measures.values():
        add_features(current, measured)
    num_refused = len(results.refused)
    met = (num_refused, num_refused + len(results.cases))
    drift = watch(model.norms, current, refused=met) if model.norms and current else None
    drifted = drift_fact(drift, archive)
    calibration = calibrate(results.table, results.patients, results.predicted)
    findings = findings_of(scores, groups, drift, archive)
    findings += [row.sentence for row in (calibration.rows if calibration else ()) if row.is_short]
    rule = _review_rule(model, results)
    bound = state_bound(results.table, results.patients, criteria.bound, findings, rule)
    facts: dict[tuple[str, str], Fact] = {
        **site_facts(results, scores, groups, drifted, archive, is_monthly=bool(months)),
        **bound_fact(bound),
        **judged_facts(judged or {}),
        **structure_facts(scores),
    }
    return Dossier(
        model=model,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        months=months,
        patients=len({results.patients[case] for case in results.cases}),
        refused=dict(Counter(results.refused.values()).most_common()),
        scores=scores,
        groups=groups,
        drift=drift,
        baseline={name: sorted(map(_digits, values)) for name, values in current.items()},
        archive=archive,
        seconds=mean_seconds(results),
        memory_mb=results.memory_mb,
        bound=bound,
        accept=apply(criteria.accept, facts),
        stop=apply(criteria.stop, facts),
        table=results.table.assign(case=results.table["case"].map(numbers)),
        copies=len(results.contents) - len(set(results.contents.values())),
        judged=dict(judged or {}),
        drifted=drifted,
        calibration=calibration,
        doubt=doubt_of_learning(results.table),
    )


def _review_rule(model: AssessedModel, results: LocalResults) -> ReviewRule | None:
    """Rule of review of the package, if it predicts quality."""
    if model.threshold is None or not results.predicted:
        return None
    scores = {case: found.score for case, found in results.predicted.items()}
    return ReviewRule(model.threshold, model.review, model.risk, scores)


def _calibration_record(found: Calibration | None) -> dict[str, Any] | None:
    if found is None:
        return None
    curve = found.curve
    return {
        "intervals": [asdict(row) for row in found.rows],
        "aurc": curve.aurc,
        "best_aurc": curve.best_aurc,
        "random_aurc": curve.random_aurc,
        "coverage": [_digits(value) for value in curve.coverage],
        "risk": [_digits(value) for value in curve.risk],
    }


def findings_of(
    scores: Sequence[ScoreRow],
    groups: Sequence[GroupRow],
    drift: Sequence[DriftRow] | None,
    archive: ArchiveFacts | None,
) -> list[str]:
    """Worse groups, shifts and drift in words."""
    return [
        *(row.sentence for row in _one_each([r for r in groups if r.is_worse], _group_of)),
        *(row.sentence for row in _one_each([r for r in scores if r.is_shift], _metric_of)),
        *(_drift_sentence(row, "here") for row in drift or () if row.is_alarm),
        *(
            _drift_sentence(row, "in the archive's last run")
            for row in (archive.drift if archive else ())
            if row.is_alarm
        ),
    ]


Row = TypeVar("Row", GroupRow, ScoreRow)


def _one_each(rows: Sequence[Row], kind_of: Callable[[Row], object]) -> list[Row]:
    """Of the rows of each kind the one of the mean over structures, else the first."""
    found: dict[object, Row] = {}
    for row in rows:
        if kind_of(row) not in found or row.label == MEAN_LABEL:
            found[kind_of(row)] = row
    return list(found.values())


def _group_of(row: GroupRow) -> object:
    return row.kind, row.value


def _metric_of(row: ScoreRow) -> object:
    return row.metric


def _drift_sentence(row: DriftRow, where: str) -> str:
    return (
        f"drift: {row.feature} is {row.run:.4g} {where} (n = {row.num_run}) and "
        f"{row.training:.4g} in training"
    )


def _case_scores(table: pd.DataFrame) -> list[dict[str, Any]]:
    columns = ["case", "label", "dice", "hd95_mm", "missed", "false_positive", "both_empty"]
    return [
        {str(key): _digits(value) for key, value in row.items()}
        for row in table[columns].to_dict("records")
    ]


def _digits(value: Any) -> Any:
    """Six digits of a number; None where it is none."""
    if isinstance(value, bool | str | int) or not isinstance(value, float):
        return bool(value) if type(value).__name__ == "bool_" else value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
