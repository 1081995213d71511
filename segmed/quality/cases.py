"""Cases for the fit of a quality model as a file beside the scores of a training."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmed.io.atomic import write_whole
from segmed.quality.case_features import CaseFeatures
from segmed.quality.fitting import QualityCase, StructureTruth

if TYPE_CHECKING:
    import pandas as pd

    from segmed.metrics.score import CaseScore

QUALITY_CASES_FILE = "quality_cases.json"
"""Name of the file in the folder of a training."""

QualityCases = dict[str, QualityCase]
"""Cases by id."""


def quality_case(
    group: str,
    features: CaseFeatures,
    scores: Iterable[CaseScore],
    *,
    is_flagged: bool | None = None,
) -> QualityCase | None:
    """A case from its features and its scores; None if a structure was not scored.

    Args:
        group: Group (patient) of the case.
        features: Features by structure.
        scores: All rows of the case; those of other labels than its structures are left out.
        is_flagged: Whether its result has a quality flag, where that was looked at.
    """
    truth = {
        score.label: StructureTruth(
            math.nan if score.both_empty else score.dice,
            score.volume_prediction_ml,
            score.volume_reference_ml,
        )
        for score in scores
        if score.label in features
    }
    is_whole = truth.keys() == features.keys()
    return QualityCase(group, features, truth, is_flagged) if is_whole else None


def with_table(
    cases: Mapping[str, QualityCase],
    table: pd.DataFrame,
    flags: Mapping[str, bool] | None = None,
) -> QualityCases:
    """The same cases with the scores of a table, such as those after post-processing.

    Args:
        cases: Cases by id.
        table: One row a case and structure; cases that it lacks are left out.
        flags: Whether each result of the table has a quality flag; those of the cases are kept if
            not given, as where the table has the same results.
    """
    found: QualityCases = {}
    for name, rows in table.groupby("case"):
        case = cases.get(str(name))
        if case is None:
            continue
        truth = {
            str(row["label"]): StructureTruth(
                math.nan if row["both_empty"] else float(row["dice"]),
                float(row["volume_prediction_ml"]),
                float(row["volume_reference_ml"]),
            )
            for row in rows.to_dict("records")
        }
        if truth.keys() >= case.truth.keys():
            is_flagged = case.is_flagged if flags is None else flags.get(str(name))
            own = {label: truth[label] for label in case.truth}
            found[str(name)] = replace(case, truth=own, is_flagged=is_flagged)
    return found


def write_quality_cases(path: Path, cases: Mapping[str, QualityCase]) -> Path:
    """Write cases as JSON, whole or not at all."""
    content = {name: _record(case) for name, case in cases.items()}
    write_whole(path, json.dumps(content, indent=1))
    return path


def read_quality_cases(path: Path) -> QualityCases:
    """Read cases; none if the file does not exist, as beside trainings of earlier versions."""
    if not path.is_file():
        return {}
    content: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return {name: _case(record) for name, record in content.items()}


def _record(case: QualityCase) -> dict[str, Any]:
    truth = {
        label: [None if math.isnan(item.dice) else item.dice, item.predicted_ml, item.reference_ml]
        for label, item in case.truth.items()
    }
    flagged = {} if case.is_flagged is None else {"is_flagged": case.is_flagged}
    return {"group": case.group, "features": case.features, "truth": truth, **flagged}


def _case(record: Mapping[str, Any]) -> QualityCase:
    truth = {
        label: StructureTruth(math.nan if dice is None else dice, predicted, reference)
        for label, (dice, predicted, reference) in record["truth"].items()
    }
    return QualityCase(record["group"], record["features"], truth, record.get("is_flagged"))
