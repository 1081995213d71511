"""The package to use after a comparison, with the post-processing chosen on held-out cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_data import hippocampus_package

from pipelines.comparing.best_package import BEST, choose_best, package_of_winner, sentences_of
from pipelines.comparing.jobs import Request
from pipelines.registry.card import card_of
from pipelines.registry.registration import register_winner
from pipelines.tracking.runs import comparison
from segmed.inference.cleaning_search import NestedGain, search_cleaning
from segmed.inference.postprocessing import Cleaning
from segmed.io import grid_of, write_label
from segmed.manifest import Manifest, read_manifest, read_reference
from segmed.metrics import evaluate_case, scores_table
from segmed.metrics.learned import mean_dice_of
from segmed.package import ModelPackage
from segmed.report.model_comparison import FoldResult, ModelComparison, compare_fold_results
from segmed.training import Budget


def fold_result(manifest: Manifest, fold: int, folder: Path) -> FoldResult:
    """A fold whose predictions are the references with a false island each."""
    predictions, rows = {}, []
    for case in manifest.split(fold)[1]:
        reference = read_reference(manifest, manifest.label_path(case))
        values = np.asarray(reference)[0].copy()
        corner = values[-2:, :2, :2]
        corner[corner == 0] = 1
        predictions[case.id] = folder / f"{case.id}.nii.gz"
        write_label(predictions[case.id], torch.from_numpy(values), like=reference)
        rows += evaluate_case(
            values,
            reference[0],
            labels=manifest.encoding,
            spacing_mm=grid_of(reference).spacing_mm,
            case_id=case.id,
        )
    package = replace(hippocampus_package(fold), provenance={"fold": fold})
    place = package.save(folder / f"package{fold}")
    return FoldResult("unet", fold, scores_table(rows), [], place, predictions)


@pytest.fixture
def one_fold(
    sample_manifest_path: Path, tmp_path: Path
) -> tuple[ModelComparison, Manifest, Request]:
    manifest = read_manifest(sample_manifest_path)
    cases = tuple(
        case.model_copy(update={"fold": n // 17}) for n, case in enumerate(manifest.training)
    )
    manifest = manifest.model_copy(update={"training": cases})
    compared = compare_fold_results([fold_result(manifest, 0, tmp_path)])
    request = Request.parse(
        sample_manifest_path,
        models="unet",
        folds="0",
        plan=None,
        budget=Budget(epochs=1),
        out_dir=tmp_path / "out",
    )
    return compared, manifest, request


def test_best_package_cleans_as_its_held_out_cases_showed(
    one_fold: tuple[ModelComparison, Manifest, Request],
) -> None:
    compared, manifest, request = one_fold
    record, (table,) = choose_best(compared, manifest, request)
    assert package_of_winner(compared, request.out_dir) == request.out_dir / BEST
    package = ModelPackage.load(request.out_dir / BEST)
    assert package.hash == record["hash"]
    assert package.plan.inference.keep_largest == (1,)
    assert "17 out-of-fold cases of 17 groups" in package.plan.reasons["inference.keep_largest"]
    assert "post-processing: keep the largest component of anterior" in card_of(package)
    (used,) = record["postprocessing"]["used"]
    assert (used["structure"], used["better"], used["worse"]) == ("anterior", 17, 0)
    tried, nested = record["sentences"]
    assert "steps tried on the 17 held-out cases of fold 0; used: keep the largest" in tried
    assert "chosen without the cases that are scored (nested)" in nested
    kept = package.provenance["held_out_scores"]["structures"]["mean"]["dice"]["mean"]
    assert kept == 1.0 > mean_dice_of(compared.tables["unet"])
    assert [row[-1] for row in table.rows if row[0].startswith("keep the largest")] == ["used"]


def test_comparison_can_do_without_post_processing(
    one_fold: tuple[ModelComparison, Manifest, Request],
) -> None:
    compared, manifest, request = one_fold
    record, tables = choose_best(compared, manifest, replace(request, postprocess=False))
    best = ModelPackage.load(request.out_dir / BEST)
    assert best.hash == ModelPackage.load(compared.winning_package).hash == record["hash"]
    assert tables == []
    assert "postprocessing" not in record


def test_registered_version_has_the_scores_after_the_nested_choice(
    one_fold: tuple[ModelComparison, Manifest, Request], working_folder: Path
) -> None:
    compared, manifest, request = one_fold
    choose_best(compared, manifest, request)
    place = package_of_winner(compared, request.out_dir)
    plan = ModelPackage.load(place).plan
    with comparison("one", manifest, plan, folder=working_folder) as parent:
        version = register_winner(compared, place, "hippo", parent, folder=working_folder)
    assert version.tags["segmed.held_out_dice"] == "1.000"


def test_withdrawn_and_absent_choices_are_said(
    one_fold: tuple[ModelComparison, Manifest, Request],
) -> None:
    compared, manifest, _ = one_fold
    (found,) = compared.fold_results
    search = search_cleaning(found.predictions, manifest, found.table)
    step = Cleaning("keep_largest", 1)
    lower = NestedGain(0.9, 0.88, -0.03, 0.01, 17)
    (sentence,) = sentences_of(replace(search, steps=(), withdrawn=(step,), gain=lower), [0])
    assert "1 of them help there" in sentence
    assert "lower the mean Dice from 0.9000 to 0.8800: none is used" in sentence
    (sentence,) = sentences_of(replace(search, steps=()), [0, 1])
    assert sentence.endswith("17 out-of-fold cases; none helps significantly, none is used")
    (sentence,) = sentences_of(replace(search, steps=(), withdrawn=(step,), gain=None), [0])
    assert sentence.endswith("their worth on other cases is unknown: none is used")
