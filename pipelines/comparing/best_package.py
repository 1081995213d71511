"""The package to use after a comparison: the winner, with the post-processing that helps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from pipelines.comparing.cross_validation import ENSEMBLES
from pipelines.comparing.ensembling import Chosen, choose_models, ensembles_table
from pipelines.comparing.jobs import Request
from pipelines.comparing.predicted_quality import flags_when_cleaned, out_of_fold_cases
from pipelines.tracking.held_out import held_out_scores
from pipelines.tracking.tags import HELD_OUT
from segmed.inference.cleaning_effects import CleaningEffect
from segmed.inference.cleaning_search import CleaningSearch, search_cleaning, search_record
from segmed.inference.postprocessing import with_steps
from segmed.manifest import Manifest
from segmed.metrics.training_norms import DISTRIBUTIONS, RANGES
from segmed.package import ModelPackage
from segmed.package.ensemble import mix_packages
from segmed.package.mixed_plans import mix_plans
from segmed.package.predicted_quality import with_quality
from segmed.package.training_cases import CORRECTIONS, SEEN
from segmed.plan import Plan, plan_hash
from segmed.quality.model import Basis
from segmed.report.content import ReportTable
from segmed.report.model_comparison import ModelComparison

BEST = "best"
"""Folder of a comparison with the package to use."""

POSTPROCESSING = "postprocessing"
"""Key in a package's provenance of the post-processing that was tried and chosen."""

WHOLE = ("data_hash", "folds", SEEN, CORRECTIONS, RANGES, DISTRIBUTIONS)
"""Provenance of the first model that holds for a mixed package, too."""

COLUMNS = ("Step", "Dice before", "after", "better", "worse", "p", "Result")


def package_of_winner(compared: ModelComparison, out_dir: Path) -> Path:
    """The package to use, if there is one; else the winner's ensemble or one package."""
    folds = [c for c in compared.fold_results if c.architecture == compared.winner]
    made = out_dir / BEST
    if made.exists():
        return made
    return out_dir / ENSEMBLES / compared.winner if len(folds) > 1 else compared.winning_package


def choose_best(
    compared: ModelComparison, manifest: Manifest, request: Request
) -> tuple[dict[str, Any], list[ReportTable]]:
    """Write the package to use into `OUT/best`.

    It is the winner, averaged with other models where that is significantly better, with the
    post-processing that helps.

    Args:
        compared: The comparison, whose ensembles are written.
        manifest: The image set.
        request: The request; gives the folder.

    Returns:
        What was chosen as JSON values, and tables of what was tried.
    """
    chosen = choose_models(compared, manifest, request)
    package = _package_of(chosen, compared, request)
    folds = [one.fold for one in chosen.fold_results]
    record: dict[str, Any] = {
        "package": BEST,
        "models": list(chosen.models),
        "members": package.members,
        "folds": folds,
        "ensembles": [trial.record() for trial in chosen.trials],
        "sentences": chosen.sentences(),
    }
    tables = [ensembles_table(chosen)] if chosen.trials else []
    if len(chosen.models) > 1:
        scores = held_out_scores(chosen.table, folds, unit=compared.unit)
        package = replace(package, provenance={**package.provenance, HELD_OUT: scores})
    cleaned_table: pd.DataFrame | None = None
    predictions = {k: path for one in chosen.fold_results for k, path in one.predictions.items()}
    if request.postprocess:
        rules = package.plan.inference
        search = search_cleaning(predictions, manifest, chosen.table, rules=rules)
        scores = held_out_scores(search.table, folds, unit=compared.unit)
        package = cleaning_package(package, search, scores)
        cleaned_table = search.table if search.steps else None
        record[POSTPROCESSING] = search_record(search)
        record["sentences"] += sentences_of(search, folds)
        tables.append(table_of(search))
    flags = None if cleaned_table is None else flags_when_cleaned(predictions, package)
    cases = out_of_fold_cases(chosen.fold_results, cleaned_table, flags)
    basis: Basis = "held_out" if package.members == 1 else "out_of_fold"
    package = with_quality(
        package, cases, basis=basis, networks=len(chosen.models), target=request.promise
    )
    package.save(request.out_dir / BEST)
    return {**record, "hash": package.hash}, tables


def _package_of(chosen: Chosen, compared: ModelComparison, request: Request) -> ModelPackage:
    """The networks of all folds of the chosen models, of one plan or of several."""
    packages = []
    for name in chosen.models:
        place = next(c.package_dir for c in compared.fold_results if c.architecture == name)
        if len(chosen.fold_results) > 1:
            place = request.out_dir / ENSEMBLES / name
        packages.append(ModelPackage.load(place))
    if len(packages) == 1:
        return packages[0]
    shared = {key: packages[0].provenance[key] for key in WHOLE if key in packages[0].provenance}
    by_plan: dict[str, list[ModelPackage]] = {}
    for package in packages:
        by_plan.setdefault(plan_hash(package.plan), []).append(package)
    mixed = [mix_packages(some, shared) if some[1:] else some[0] for some in by_plan.values()]
    return mix_plans(mixed, shared) if mixed[1:] else mixed[0]


def cleaning_package(
    package: ModelPackage, search: CleaningSearch, scores: Mapping[str, Any]
) -> ModelPackage:
    """A package that cleans its label maps by the chosen steps; its provenance has the evidence.

    Args:
        package: The package.
        search: The choice.
        scores: Scores of held-out cases, each cleaned by steps that it did not help to choose.
    """
    provenance = {
        **package.provenance,
        POSTPROCESSING: search_record(search),
        HELD_OUT: dict(scores),
    }
    if not search.steps:
        return replace(package, provenance=provenance)
    return replace(package, plan=_with_cleaning(package.plan, search), provenance=provenance)


def _with_cleaning(plan: Plan, search: CleaningSearch) -> Plan:
    """A plan with the chosen steps, and their reasons above them."""
    reasons = dict(plan.reasons)
    for field, effects in _by_field(search.used).items():
        found = "; ".join(effect.described() for effect in effects)
        reasons[f"inference.{field}"] = (
            f"chosen on {search.cases} out-of-fold cases of {search.groups} groups, "
            f"{len(search.effects)} steps tried: {found}"
        )
    rules = with_steps(plan.inference, search.steps)
    return plan.model_copy(update={"inference": rules, "reasons": reasons})


def _by_field(effects: Sequence[CleaningEffect]) -> dict[str, list[CleaningEffect]]:
    found: dict[str, list[CleaningEffect]] = {}
    for effect in effects:
        step = effect.cleaning
        field = f"{step.step}_ml" if step.min_ml else str(step.step)
        found.setdefault(field, []).append(effect)
    return found


def sentences_of(search: CleaningSearch, folds: Sequence[int]) -> list[str]:
    """The choice and the evidence for it, in words."""
    basis = (
        f"{search.cases} out-of-fold cases"
        if len(folds) > 1
        else f"the {search.cases} held-out cases of fold {folds[0]}"
    )
    tried = f"post-processing: {len(search.effects)} steps tried on {basis}"
    if search.withdrawn and search.gain is None:
        return [
            f"{tried}; {len(search.withdrawn)} of them help there, but parts of the cases are too "
            "few to choose any, so that their worth on other cases is unknown: none is used"
        ]
    if search.withdrawn:
        assert search.gain is not None
        return [
            f"{tried}; {len(search.withdrawn)} of them help there, but chosen without the cases "
            f"that they are scored on they lower the mean Dice from {search.gain.before:.4f} to "
            f"{search.gain.after:.4f}: none is used"
        ]
    if not search.steps:
        return [f"{tried}; none helps significantly, none is used"]
    used = "; ".join(effect.described() for effect in search.used)
    return [f"{tried}; used: {used}", _nested_sentence(search)]


def _nested_sentence(search: CleaningSearch) -> str:
    gain = search.gain
    assert gain is not None  # else no step is used
    return (
        "chosen without the cases that are scored (nested), post-processing changes the mean Dice "
        f"from {gain.before:.4f} to {gain.after:.4f} (95 % {100 * gain.low:+.2f} to "
        f"{100 * gain.high:+.2f} points, n = {gain.cases}): these scores are kept with the package"
    )


def table_of(search: CleaningSearch) -> ReportTable:
    """Every step that was tried, as a table of the report."""
    rows = [
        (
            effect.described().split(" (", 1)[0],
            f"{effect.before:.4f}",
            f"{effect.after:.4f}",
            str(effect.better),
            str(effect.worse),
            f"{effect.p_corrected:.2g}",
            "used" if effect.cleaning in search.steps else effect.verdict,
        )
        for effect in sorted(search.effects, key=lambda one: one.before - one.after)
        if effect.better or effect.worse
    ]
    silent = len(search.effects) - len(rows)
    note = (
        f"Tried on {search.cases} out-of-fold cases of {search.groups} patients or other groups, "
        "before and after by mean Dice of the structure. Better and worse count groups; p is "
        "Wilcoxon's signed-rank test over groups, corrected for all steps (Tarone)."
    )
    if silent:
        note += f" {silent} more steps change nothing in any case."
    return ReportTable("Post-processing", note, COLUMNS, rows)
