"""All folds of one model: every case segmented by a network that had not seen it, and an ensemble
that `segmed predict` takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_data import write_set
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.comparing import steps
from pipelines.comparing.best_package import BEST, package_of_winner
from pipelines.comparing.jobs import Request
from pipelines.tracking.runs import comparison
from segmed.io import read_image, read_label
from segmed.io.packs import SUFFIX, read_index
from segmed.manifest import read_manifest
from segmed.package import ModelPackage
from segmed.plan import read_plan
from segmed.preprocessing import prepare
from segmed.report.model_comparison import ModelComparison
from segmed.training import Budget, Settings


@pytest.fixture
def cross_validated(working_folder: Path) -> tuple[ModelComparison, Request]:
    manifest_path = write_set(working_folder / "set")
    plan_path = manifest_path.with_name("plan.yaml")
    request = Request.parse(
        manifest_path,
        models="unet",
        folds="all",
        plan=plan_path,
        budget=Budget(epochs=2),
        out_dir=working_folder / "out",
        settings=Settings(device="cpu"),
    )
    manifest, plan = read_manifest(manifest_path), read_plan(plan_path)
    fold_results = []
    with comparison("folds", manifest, plan, folder=working_folder) as parent:
        for job in request.jobs(plan_path):
            with parent.child(job.architecture, job.fold) as log:
                fold_results.append(steps.train_and_score(job, log))
    compared, _ = steps.conclude(fold_results, request, [])
    return compared, request


def test_every_training_case_is_segmented_by_a_network_that_had_not_seen_it(
    cross_validated: tuple[ModelComparison, Request],
) -> None:
    compared, request = cross_validated
    record = json.loads((request.out_dir / "comparison.json").read_text(encoding="utf-8"))[
        "ensembles"
    ]["unet"]
    assert record["out_of_fold_cases"] == record["training_cases"] == 4
    manifest = read_manifest(request.manifest_path)
    folder = request.out_dir / "out_of_fold" / "unet"
    names = {path.name for path in (folder / "segmentations").iterdir()}
    assert names == {f"{case.id}.nii.gz" for case in manifest.training}
    scores = pd.read_csv(folder / "scores.csv")
    assert set(scores["case"]) == {case.id for case in manifest.training}
    for fold_result in compared.fold_results:
        held_out = {case.id for case in manifest.split(fold_result.fold)[1]}
        assert set(fold_result.predictions) == held_out
        trained_on = ModelPackage.load(fold_result.package_dir).provenance
        assert trained_on["fold"] == fold_result.fold
    packs = (request.out_dir / "cache").glob(f"*{SUFFIX}")
    assert sum(len(read_index(pack)) for pack in packs) == 4, "each case is prepared once"


def test_the_ensemble_of_the_folds_is_the_winner_and_predicts(
    cross_validated: tuple[ModelComparison, Request],
) -> None:
    compared, request = cross_validated
    place = package_of_winner(compared, request.out_dir)
    assert place == request.out_dir / BEST
    ensemble = ModelPackage.load(place)
    assert ensemble.members == 2
    assert ensemble.provenance["training_distributions"], "the drift watch needs them"
    image = request.manifest_path.with_name("case0_image.nii")
    out = request.out_dir / "predicted"
    options = ["--model", str(place), "-o", str(out), "--engine", "torch", "--device", "cpu"]
    done = CliRunner().invoke(app, ["predict", str(image), *options])
    assert done.exit_code == 0, done.output
    (written,) = out.glob("*.nii.gz")
    prepared = prepare(read_image(image), ensemble.plan).tensor[None]
    apart = [ModelPackage.load(c.package_dir).build() for c in compared.fold_results]
    mean = torch.stack([network(prepared).softmax(dim=1) for network in apart]).mean(dim=0)
    expected = mean[0].argmax(dim=0).numpy()  # one window, no resampling, values 1 and 2
    assert np.array_equal(np.asarray(read_label(written))[0], expected)
