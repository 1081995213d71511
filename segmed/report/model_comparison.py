"""Architectures against each other on the same held-out cases: the record and the report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from PIL.Image import Image

from segmed.errors import UsageError
from segmed.manifest.schema import Case, Manifest
from segmed.metrics import Comparison, ModelCost, compare_models, summarise
from segmed.metrics.learned import doubt_of_learning, mean_dice_of
from segmed.metrics.summary import COUNTS, RECORDED_METRICS
from segmed.pictures.scores import scores_picture
from segmed.pictures.shown import as_png
from segmed.report import ArchiveItem, Cost, OverlayItem, ReportContent
from segmed.report.case_overlay import overlay_of_case
from segmed.report.legends import legend_of_set


@dataclass(frozen=True, repr=False)
class FoldResult:
    """One architecture, trained and scored on one fold.

    Attributes:
        architecture: Model name.
        fold: Fold that was held out.
        table: Scores of the held-out cases.
        history: One record an epoch.
        package_dir: The trained package.
        predictions: Written segmentation of each held-out case.
        parameters: Trainable parameters.
        train_seconds: Wall time of the training.
        seconds_per_case: Mean wall time of a segmentation.
        peak_memory_mb: Largest memory while training, in MB.
    """

    architecture: str
    fold: int
    table: pd.DataFrame
    history: Sequence[Mapping[str, Any]]
    package_dir: Path
    predictions: Mapping[str, Path] = field(default_factory=dict)
    parameters: int = 0
    train_seconds: float = 0.0
    seconds_per_case: float = 0.0
    peak_memory_mb: float = 0.0

    def __repr__(self) -> str:
        """Architecture, fold, cases and mean Dice in one line."""
        dice = mean_dice_of(self.table)
        cases = int(self.table["case"].nunique())
        return (
            f"FoldResult({self.architecture}, fold {self.fold}: {cases} cases, "
            f"mean Dice {dice:.3f})"
        )


@dataclass(frozen=True, repr=False)
class ModelComparison:
    """All fold results, compared.

    Attributes:
        fold_results: One an architecture and fold.
        tables: Scores of each architecture over its folds.
        costs: What each architecture costs.
        result: Ranks, tests and sentences; absent for a single architecture.
        winner: The architecture that ranks first.
        unit: Unit of distances, `mm` or `px`.
    """

    fold_results: tuple[FoldResult, ...]
    tables: dict[str, pd.DataFrame]
    costs: dict[str, ModelCost]
    result: Comparison | None
    winner: str
    unit: Literal["mm", "px"] = "mm"

    def __repr__(self) -> str:
        """Winner, and the mean Dice of each architecture, in one line."""
        means = ", ".join(f"{n} {mean_dice_of(table):.3f}" for n, table in self.tables.items())
        return f"ModelComparison({self.winner} ranks first; mean Dice {means})"

    def plot(self) -> Image:
        """Picture of Dice and HD95 of every case, by structure and architecture."""
        return scores_picture(self.tables, unit=self.unit)

    def _repr_png_(self) -> bytes:
        """The same picture as PNG, for notebooks."""
        return as_png(self.plot())

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for the top of the page: nothing learned first, then what the tables show."""
        found = self.result.warnings if self.result else ()
        return (*_nothing_learned(self), *found)

    @property
    def doubt(self) -> str | None:
        """Reason why even the winner's scores are no sign of learning; None where they are."""
        return doubt_of_learning(self.tables[self.winner])

    @property
    def winning_package(self) -> Path:
        """Package of the winner's first fold."""
        return next(c.package_dir for c in self.fold_results if c.architecture == self.winner)


def compare_fold_results(
    fold_results: Sequence[FoldResult], *, unit: Literal["mm", "px"] = "mm"
) -> ModelComparison:
    """Compare architectures on the cases that all of them held out.

    Args:
        fold_results: At least one; all architectures must have scored the same cases.
        unit: Unit of distances: `px` for images without a spacing.

    Returns:
        The comparison, the winner first in its ranking.

    Raises:
        UsageError: There is no result.
        MetricError: The architectures scored different cases, or nothing could be scored.
    """
    if not fold_results:
        raise UsageError("nothing to compare: no architecture finished")
    names = list(dict.fromkeys(c.architecture for c in fold_results))
    grouped = {name: [c for c in fold_results if c.architecture == name] for name in names}
    tables = {
        name: pd.concat([c.table for c in group], ignore_index=True)
        for name, group in grouped.items()
    }
    costs = {
        name: ModelCost(
            parameters=group[0].parameters,
            seconds_per_case=float(np.mean([c.seconds_per_case for c in group])),
            peak_memory_mb=max(c.peak_memory_mb for c in group),
        )
        for name, group in grouped.items()
    }
    result = compare_models(tables, costs=costs, unit=unit) if len(names) > 1 else None
    winner = names[0] if result is None else str(result.overall["model"].iloc[0])
    return ModelComparison(tuple(fold_results), tables, costs, result, winner, unit)


def _nothing_learned(compared: ModelComparison) -> tuple[str, ...]:
    """A sentence where even the best architecture overlaps with next to nothing."""
    if compared.doubt is None:
        return ()
    is_alone = len(compared.tables) == 1
    found = "nothing was learned" if is_alone else "no architecture learned anything"
    return (
        f"{found}: {compared.winner} comes first, but {compared.doubt}: do not use its "
        "segmentations; train longer (--budget), and check labels and images with "
        "`segmed manifest check`",
    )


def comparison_record(compared: ModelComparison) -> dict[str, Any]:
    """The content of `comparison.json`: plain values, distances in mm, seconds, megabytes."""
    return {
        "winner": compared.winner,
        "unit": compared.unit,
        "sentences": list(compared.result.sentences) if compared.result else [],
        "warnings": list(compared.warnings),
        "architectures": {name: _architecture_record(compared, name) for name in compared.tables},
    }


def _architecture_record(compared: ModelComparison, name: str) -> dict[str, Any]:
    group = [c for c in compared.fold_results if c.architecture == name]
    labels: dict[str, Any] = {}
    for label, rows in summarise(compared.tables[name]).groupby("label", sort=False):
        metrics = {
            str(row["metric"]): {
                "mean": _finite(row["mean"]),
                "std": _finite(row["std"]),
                "n": int(row["n"]),
                "ci_low": _finite(row["ci_low"]),
                "ci_high": _finite(row["ci_high"]),
            }
            for row in rows.to_dict("records")
            if row["metric"] in RECORDED_METRICS
        }
        counts = {column: int(rows[column].iloc[0]) for column in COUNTS}
        labels[str(label)] = {**metrics, **counts}
    return {
        "parameters": group[0].parameters,
        "seconds": round(sum(c.train_seconds for c in group), 1),
        "seconds_per_case": round(float(np.mean([c.seconds_per_case for c in group])), 3),
        "peak_memory_mb": round(max(c.peak_memory_mb for c in group)),
        "folds": [c.fold for c in group],
        "steps": [int(c.history[-1]["step"]) if c.history else 0 for c in group],
        "labels": labels,
    }


def _finite(value: float) -> float | None:
    """A rounded number, or nothing: JSON has no NaN."""
    return round(float(value), 6) if math.isfinite(value) else None


def report_content(
    compared: ModelComparison,
    manifest: Manifest,
    *,
    title: str,
    subtitle: str,
    archive: Sequence[ArchiveItem] = (),
    provenance: Mapping[str, str] | None = None,
) -> ReportContent:
    """Collect the report content of a model comparison.

    Args:
        compared: The comparison.
        manifest: The image set, for the overlays' images.
        title: Heading of the page.
        subtitle: What was compared, under which budget.
        archive: Outcomes of an archive run to show below.
        provenance: Versions and hashes.

    Returns:
        The content; overlays are read from the files when the page is written.
    """
    curves = {f"{c.architecture}/fold {c.fold}": list(c.history) for c in compared.fold_results}
    seconds = {
        name: sum(c.train_seconds for c in compared.fold_results if c.architecture == name)
        for name in compared.tables
    }
    return ReportContent(
        title=title,
        subtitle=subtitle,
        warnings=compared.warnings,
        sentences=compared.result.sentences if compared.result else (),
        scores=compared.tables,
        costs={
            name: Cost(
                parameters=cost.parameters,
                train_seconds=seconds[name],
                seconds_per_case=cost.seconds_per_case,
                peak_memory_mb=cost.peak_memory_mb,
            )
            for name, cost in compared.costs.items()
        },
        winner=compared.winner,
        curves=curves,
        overlays=_telling_overlays(compared, manifest),
        archive=archive,
        provenance=provenance or {},
        legend=legend_of_set(manifest),
    )


def _telling_overlays(compared: ModelComparison, manifest: Manifest) -> Iterator[OverlayItem]:
    """The winner's worst and best case, then every other model's worst."""
    cases = {case.id: case for case in manifest.training}
    names = [compared.winner, *[name for name in compared.tables if name != compared.winner]]
    for name in names:
        means = compared.tables[name].groupby("case")["dice"].mean().dropna().sort_values()
        chosen = [means.index[0]]
        if name == compared.winner and len(means) > 1:
            chosen.append(means.index[-1])
        for case_id in chosen:
            yield _overlay(compared, name, cases[str(case_id)], manifest, float(means[case_id]))


def _overlay(
    compared: ModelComparison, model: str, case: Case, manifest: Manifest, dice: float
) -> OverlayItem:
    group = [c for c in compared.fold_results if c.architecture == model]
    prediction = next(c.predictions[case.id] for c in group if case.id in c.predictions)
    caption = f"{case.id}, {model}: mean Dice {dice:.3f}"
    return overlay_of_case(manifest, case, prediction, caption=caption, model=model)
