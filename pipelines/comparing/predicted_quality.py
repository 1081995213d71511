"""Out-of-fold cases of a comparison, on which the quality models of its packages are fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from segmed.geometry import spacing_of
from segmed.inference.postprocessing import cleaned
from segmed.io import read_label
from segmed.metatensor import MetaTensor
from segmed.metrics.measures import measure_label
from segmed.metrics.training_norms import ranges_of
from segmed.package import ModelPackage
from segmed.quality.cases import QUALITY_CASES_FILE, QualityCases, read_quality_cases, with_table
from segmed.report.model_comparison import FoldResult


def out_of_fold_cases(
    folds: Sequence[FoldResult],
    table: pd.DataFrame | None = None,
    flags: Mapping[str, bool] | None = None,
) -> QualityCases:
    """The held-out cases of all folds.

    Args:
        folds: Results of the folds.
        table: Scores to use instead of those of the folds, such as those after post-processing.
        flags: Whether the results of this table have quality flags, from `flags_when_cleaned`.

    Returns:
        Cases by id; none where a training of an earlier version left no features.
    """
    found: QualityCases = {}
    for fold in folds:
        cases = read_quality_cases(folder_of(fold) / QUALITY_CASES_FILE)
        if not cases:
            return {}
        found |= with_table(cases, fold.table if table is None else table, flags)
    return found


def flags_when_cleaned(predictions: Mapping[str, Path], package: ModelPackage) -> dict[str, bool]:
    """Look for quality flags of held-out results, cleaned as a package cleans its own.

    A drift watch compares the flags of a package's results with these, so that flags which cleaning
    removes must not be among them.

    Args:
        predictions: Label map of each case, by case id, as the network gave it.
        package: The package; its plan has the rules of cleaning.
    """
    plan, ranges = package.plan, ranges_of(package.provenance)
    found = {}
    for name, path in predictions.items():
        label = read_label(path)
        spacing = spacing_of(np.asarray(label.affine, np.float64))[: label.ndim - 1]
        values = cleaned(np.asarray(label)[0], plan.inference, plan.labels, spacing_mm=spacing)
        whole = MetaTensor(torch.from_numpy(values)[None], affine=label.affine)
        found[name] = bool(measure_label(whole, plan.labels, ranges=ranges)["flags"])
    return found


def folder_of(fold: FoldResult) -> Path:
    """Folder of the training, or of the mean of several, whose segmentations a result has."""
    return next(iter(fold.predictions.values()), fold.package_dir / "none").parent.parent
