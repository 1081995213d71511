"""Ensembles of models, tried on held-out cases; kept if they are significantly better.

Each fold's networks are averaged on the cases that the fold held out, so no network of the mean had
seen the case. Models of several plans, such as 2D and 3D, are averaged on the grid of the image.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipelines.comparing.jobs import Request
from pipelines.comparing.progress import progress
from segmed.evaluation import score_cases
from segmed.inference import Predictor
from segmed.inference.engine import resolve_device
from segmed.inference.vocabulary import EngineName
from segmed.io.atomic import write_whole
from segmed.manifest import Manifest
from segmed.metrics import read_table, write_table
from segmed.metrics.comparison import paired_values
from segmed.metrics.learned import doubt_of_learning
from segmed.metrics.resample import bootstrap_means, interval
from segmed.metrics.score import MEAN_LABEL, METRICS
from segmed.metrics.significance import SIGNIFICANCE, signed_rank_p
from segmed.package import PLAN_FILE, ModelPackage
from segmed.package.several_plans import difference_of
from segmed.plan import Plan, read_plan
from segmed.quality.cases import QUALITY_CASES_FILE, write_quality_cases
from segmed.report.content import ReportTable
from segmed.report.model_comparison import FoldResult, ModelComparison

MOST_RIVALS = 2
"""Models after the first that are tried beside it; each costs a pass over all cases."""

RESULT = "ensemble.json"
"""Record of a finished pass, in the folder of its fold."""

COLUMNS = ("Models", "Dice", "with it", "difference (95 %)", "p", "Result")


@dataclass(frozen=True)
class Trial:
    """A model averaged with those that were chosen before it.

    Attributes:
        models: All models of the mean, such as `unet`, or `unet-2d` beside `unet-3d`.
        before: Mean Dice of those without the last.
        after: Mean Dice of all.
        low: Lower end of the 95 % bootstrap interval of the difference.
        high: Upper end of it.
        p_corrected: Signed-rank test over groups (patients), times the number of trials.
        cases: Cases scored.
    """

    models: tuple[str, ...]
    before: float
    after: float
    low: float
    high: float
    p_corrected: float
    cases: int

    @property
    def helps(self) -> bool:
        """Return whether the last model makes the mean significantly better."""
        return self.after > self.before and self.p_corrected < SIGNIFICANCE

    def record(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "models": list(self.models),
            "dice_before": round(self.before, 6),
            "dice_after": round(self.after, 6),
            "ci_low": round(self.low, 6),
            "ci_high": round(self.high, 6),
            "p_corrected": float(f"{self.p_corrected:.4g}"),
            "cases": self.cases,
            "used": self.helps,
        }


@dataclass(frozen=True)
class Chosen:
    """The models to use together.

    Attributes:
        models: Their names; one if no ensemble was better.
        fold_results: Their results on each fold.
        trials: The ensembles that were tried.
    """

    models: tuple[str, ...]
    fold_results: tuple[FoldResult, ...]
    trials: tuple[Trial, ...] = ()

    @property
    def table(self) -> pd.DataFrame:
        """Scores over all folds."""
        return pd.concat([one.table for one in self.fold_results], ignore_index=True)

    def sentences(self) -> list[str]:
        """The choice and its evidence, in words."""
        if not self.trials:
            return []
        tried = ", ".join(" with ".join(trial.models) for trial in self.trials)
        if len(self.models) == 1:
            return [f"ensembles tried on the held-out cases: {tried}; none is significantly better"]
        last = [trial for trial in self.trials if trial.helps][-1]
        return [
            f"{' and '.join(self.models)} averaged are better than {self.models[0]}"
            f"{'' if len(self.models) == 2 else ' and one less'}: mean Dice {last.after:.4f} "
            f"against {last.before:.4f} (95 % {100 * last.low:+.2f} to {100 * last.high:+.2f} "
            f"points, p = {last.p_corrected:.2g}, n = {last.cases}; chosen on these cases among "
            f"{len(self.trials)} ensembles), at the cost of all their networks"
        ]


def choose_models(compared: ModelComparison, manifest: Manifest, request: Request) -> Chosen:
    """The winner alone, or averaged with other models that make it significantly better.

    Models are added in the order of their ranks, each tested against the mean of those
    before it, case by case.

    Args:
        compared: The comparison.
        manifest: The image set.
        request: The request; gives folder and device.
    """
    by_name = {
        name: tuple(c for c in compared.fold_results if c.architecture == name)
        for name in compared.tables
    }
    winner = compared.winner
    chosen = Chosen((winner,), by_name[winner])
    rivals = _rivals(compared, by_name, manifest) if request.ensembles else []
    for rival in rivals:
        models = (*chosen.models, rival)
        progress.info("trying the mean of %s on the held-out cases", " and ".join(models))
        results = tuple(
            _averaged([_of_fold(by_name[name], one.fold) for name in models], manifest, request)
            for one in by_name[winner]
        )
        trial = _trial(models, chosen, results, manifest, tests=len(rivals))
        chosen = Chosen(
            models if trial.helps else chosen.models,
            results if trial.helps else chosen.fold_results,
            (*chosen.trials, trial),
        )
    return chosen


def _rivals(
    compared: ModelComparison, by_name: dict[str, tuple[FoldResult, ...]], manifest: Manifest
) -> list[str]:
    """Models to try beside the winner; none where the cases could not show anything."""
    if compared.result is None or compared.doubt is not None:
        return []
    folds = [one.fold for one in by_name[compared.winner]]
    names = [str(name) for name in compared.result.overall["model"] if name != compared.winner]
    usable = [
        name
        for name in names
        if [one.fold for one in by_name[name]] == folds
        and not difference_of(_plan_of(by_name[compared.winner]), _plan_of(by_name[name]))
        and doubt_of_learning(compared.tables[name]) is None
    ][:MOST_RIVALS]
    cases = {str(case) for case in compared.tables[compared.winner]["case"]}
    groups = {case.group for case in manifest.training if case.id in cases}
    can_show = len(usable) * 2.0 ** (1 - len(groups)) < SIGNIFICANCE
    return usable if can_show else []


def _plan_of(results: Sequence[FoldResult]) -> Plan:
    """Plan of some results of one model."""
    return read_plan(results[0].package_dir / PLAN_FILE)


def _of_fold(results: Sequence[FoldResult], fold: int) -> FoldResult:
    return next(one for one in results if one.fold == fold)


def _averaged(members: Sequence[FoldResult], manifest: Manifest, request: Request) -> FoldResult:
    """The held-out cases of a fold, segmented by the mean of several models."""
    fold, name = members[0].fold, "+".join(member.architecture for member in members)
    folder = request.out_dir / "runs" / name / f"fold{fold}"
    packages = [ModelPackage.load(member.package_dir) for member in members]
    identity = [package.hash for package in packages]
    record = _kept(folder / RESULT, identity)
    if record is None:
        device = resolve_device(request.settings.device)
        engine: EngineName = "torch" if device.type == "cpu" else "auto"
        cases = manifest.split(fold)[1]
        evaluated = score_cases(
            Predictor(packages, device=str(device), engine=engine),
            manifest,
            cases,
            out_dir=folder / "predictions",
            with_features=True,
        )
        write_table(evaluated.table, folder / "scores.parquet")
        write_quality_cases(folder / QUALITY_CASES_FILE, evaluated.quality_cases)
        record = {
            "identity": identity,
            "seconds_per_case": evaluated.seconds_per_case,
            "predictions": {case: path.name for case, path in evaluated.predictions.items()},
        }
        write_whole(folder / RESULT, json.dumps(record, indent=2))
    return FoldResult(
        architecture=name,
        fold=fold,
        table=read_table(folder / "scores.parquet"),
        history=[],
        package_dir=members[0].package_dir,
        predictions={case: folder / "predictions" / n for case, n in record["predictions"].items()},
        parameters=sum(member.parameters for member in members),
        seconds_per_case=float(record["seconds_per_case"]),
    )


def _kept(path: Path, identity: Sequence[str]) -> dict[str, Any] | None:
    """Record of an earlier pass by the same networks."""
    if not path.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record if record["identity"] == list(identity) else None


def _trial(
    models: tuple[str, ...],
    chosen: Chosen,
    results: Sequence[FoldResult],
    manifest: Manifest,
    *,
    tests: int,
) -> Trial:
    after = pd.concat([one.table for one in results], ignore_index=True)
    dice = next(metric for metric in METRICS if metric.name == "dice")
    tables = {"before": chosen.table, "after": after}
    values = paired_values(tables, [dice])[MEAN_LABEL][dice.name]
    difference = values["after"] - values["before"]
    group_of = {case.id: case.group for case in manifest.training}
    groups = difference.groupby([group_of[str(case)] for case in difference.index]).mean()
    (low,), (high,) = interval(bootstrap_means(groups.to_numpy(dtype=np.float64)[:, None]))
    p_value = signed_rank_p(groups.to_numpy(dtype=np.float64).round(12))
    return Trial(
        models=models,
        before=float(values["before"].mean()),
        after=float(values["after"].mean()),
        low=float(low),
        high=float(high),
        p_corrected=min(1.0, tests * p_value),
        cases=len(values),
    )


def ensembles_table(chosen: Chosen) -> ReportTable:
    """The ensembles that were tried, as a table of the report."""
    rows = [
        (
            " + ".join(trial.models),
            f"{trial.before:.4f}",
            f"{trial.after:.4f}",
            f"{100 * trial.low:+.2f} to {100 * trial.high:+.2f} points",
            f"{trial.p_corrected:.2g}",
            "used" if trial.helps else "not significantly better",
        )
        for trial in chosen.trials
    ]
    note = (
        "The probabilities of several models averaged, fold by fold, on the cases that the fold "
        "held out; of 2D and 3D models on the grid of the image. Each row is tested against the "
        "mean of the models before the last, by Wilcoxon's signed-rank test over patients or other "
        "groups, corrected for all rows (Bonferroni)."
    )
    return ReportTable("Ensembles", note, COLUMNS, rows)
