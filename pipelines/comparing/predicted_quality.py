"""Out-of-fold cases of a comparison, on which the quality models of its packages are fitted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from segmed.quality.cases import QUALITY_CASES_FILE, QualityCases, read_quality_cases, with_table
from segmed.report.model_comparison import FoldResult


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
