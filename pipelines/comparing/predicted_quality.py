"""Quality models of the packages of a comparison, fitted on their out-of-fold cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from segmed.package import ModelPackage
from segmed.quality.cases import QUALITY_CASES_FILE, QualityCases, read_quality_cases, with_table
from segmed.quality.features import AGREEMENT
from segmed.quality.fitting import QualityCase, fit_quality
from segmed.quality.model import Basis
from segmed.quality.package_form import PREDICTED_QUALITY
from segmed.report.model_comparison import FoldResult


def with_quality(
    package: ModelPackage, cases: Mapping[str, QualityCase], *, basis: Basis, networks: int = 1
) -> ModelPackage:
    """A package that predicts the quality of its segmentations; its hash stays what it was.

    Args:
        package: The package.
        cases: Cases that the network which segmented them had not seen, by id.
        basis: Relation of these segmentations to the package; see `QualityModel`.
        networks: Networks that were averaged for each of them.

    Returns:
        The package; without a quality model if there are too few cases, whatever it had before.
    """
    # Engines average the members of one package inside the network, where none can be compared.
    model = fit_quality(
        [_without_agreement(cases[name]) for name in sorted(cases)], basis=basis, networks=networks
    )
    provenance: dict[str, Any] = dict(package.provenance)
    provenance.pop(PREDICTED_QUALITY, None)
    if model is not None:
        provenance[PREDICTED_QUALITY] = model.model_dump(mode="json")
    return replace(package, provenance=provenance)


def out_of_fold_cases(
    folds: Sequence[FoldResult], table: pd.DataFrame | None = None
) -> QualityCases:
    """The held-out cases of all folds.

    Args:
        folds: Results of the folds.
        table: Scores to use instead of those of the folds, such as those after post-processing.

    Returns:
        Cases by id; none where a training of an earlier version left no features.
    """
    found: QualityCases = {}
    for fold in folds:
        cases = read_quality_cases(folder_of(fold) / QUALITY_CASES_FILE)
        if not cases:
            return {}
        found |= with_table(cases, fold.table if table is None else table)
    return found


def folder_of(fold: FoldResult) -> Path:
    """Folder of the training, or of the mean of several, whose segmentations a result has."""
    return next(iter(fold.predictions.values()), fold.package_dir / "none").parent.parent


def _without_agreement(case: QualityCase) -> QualityCase:
    features = {
        label: {name: value for name, value in row.items() if name != AGREEMENT}
        for label, row in case.features.items()
    }
    return replace(case, features=features)
