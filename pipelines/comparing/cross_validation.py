"""Results of all folds of one architecture: out-of-fold segmentations and an ensemble."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.comparing.first_stage import label_maps_of, runs_of_first_stage
from pipelines.comparing.jobs import Request, cache_of
from pipelines.comparing.predicted_quality import out_of_fold_cases
from segmed.io.links import link_or_copy
from segmed.manifest import data_hash, read_manifest
from segmed.metrics import summarise, write_table
from segmed.package import ModelPackage
from segmed.package.ensemble import join_packages
from segmed.package.predicted_quality import with_quality
from segmed.package.training_cases import seen_record
from segmed.report.model_comparison import FoldResult, ModelComparison
from segmed.training.data import norms_of

ENSEMBLES = "ensembles"
"""Folder of a comparison with one package for each architecture with several folds."""

OUT_OF_FOLD = "out_of_fold"
"""Folder with, for each architecture, the segmentation of every case by the network that had
not seen it, and the scores of all of them."""


def join_folds(compared: ModelComparison, request: Request) -> dict[str, Any]:
    """For each architecture that was trained on several folds: an ensemble, and all its cases.

    Args:
        compared: The comparison.
        request: The request; gives the folder and the manifest.

    Returns:
        By architecture: the ensemble's folder and hash, its folds, and how many training cases
        have an out-of-fold segmentation. Folders are relative to the comparison's.
    """
    joined = {}
    for name in compared.tables:
        folds = [c for c in compared.fold_results if c.architecture == name]
        if len(folds) < 2:
            continue
        package = _ensemble(folds, request)
        place = package.save(request.out_dir / ENSEMBLES / name)
        gathered = _gather(folds, request.out_dir / OUT_OF_FOLD / name)
        scores = compared.tables[name]
        write_table(scores, request.out_dir / OUT_OF_FOLD / name / "scores.csv")
        write_table(summarise(scores), request.out_dir / OUT_OF_FOLD / name / "summary.csv")
        joined[name] = {
            "package": str(place.relative_to(request.out_dir)),
            "hash": package.hash,
            "folds": [fold_result.fold for fold_result in folds],
            "out_of_fold_cases": gathered,
            "training_cases": len(read_manifest(request.manifest_path).training),
        }
    return joined


def _ensemble(folds: Sequence[FoldResult], request: Request) -> ModelPackage:
    packages = [ModelPackage.load(fold_result.package_dir) for fold_result in folds]
    manifest = read_manifest(request.manifest_path)
    cache_dir = cache_of(request.settings, request.out_dir)
    seen = manifest.training  # each case was trained on by all folds but its own
    label_maps = None
    if packages[0].plan.refines:
        name = folds[0].architecture.removesuffix("-cascade")
        label_maps = label_maps_of(runs_of_first_stage(request.out_dir, name), manifest.folds)
    facts = {
        "data_hash": data_hash(manifest, seen),
        "folds": [c.fold for c in folds],
        **seen_record(manifest),
        **norms_of(manifest, seen, packages[0].plan, cache_dir, label_maps),
    }
    joined = join_packages(packages, facts)
    cases = out_of_fold_cases(folds)
    return with_quality(joined, cases, basis="out_of_fold", target=request.promise)


def _gather(folds: Sequence[FoldResult], folder: Path) -> int:
    """One folder with the segmentations of all folds; linked where the file system can."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "segmentations").mkdir(parents=True)
    count = 0
    for fold_result in folds:
        for path in fold_result.predictions.values():
            place = folder / "segmentations" / path.name
            link_or_copy(path, place)
            count += 1
    return count
