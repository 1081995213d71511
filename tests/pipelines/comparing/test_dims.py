"""2D against 3D by measurement: a plan for each, the same cases, one table."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import pytest
import torch
from tiny_data import write_set
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.comparing import steps
from pipelines.comparing.best_package import BEST
from pipelines.comparing.jobs import Request, require_enough_time
from pipelines.comparing.training_job import is_done
from pipelines.flows.compare import plan_for, run_name
from pipelines.tracking.runs import comparison
from segmed.errors import UsageError
from segmed.inference import Predictor
from segmed.io import read_label
from segmed.manifest import build_manifest, read_manifest, write_manifest
from segmed.package import ModelPackage
from segmed.plan import read_plan
from segmed.training import Budget, Settings


def request_for(manifest: Path, out_dir: Path, budget: Budget, plan: Path | None = None) -> Request:
    return Request.parse(
        manifest,
        models="unet",
        folds="0",
        plan=plan,
        budget=budget,
        out_dir=out_dir,
        settings=Settings(device="cpu", resume=True),
    )


def test_every_architecture_is_a_job_in_each_dimension(tmp_path: Path) -> None:
    request = request_for(write_set(tmp_path), tmp_path / "out", Budget(seconds=60.0))
    jobs = request.of_dims("3,2,3").jobs(tmp_path / "out" / "plan.yaml")
    assert [(job.model, job.architecture, job.plan_path.name) for job in jobs] == [
        ("unet-3d", "unet", "plan-3d.yaml"),
        ("unet-2d", "unet", "plan-2d.yaml"),
    ]
    assert [job.run_dir.parent.name for job in jobs] == ["unet-3d", "unet-2d"]
    assert {job.budget.seconds for job in jobs} == {30.0}
    (alone,) = request.of_dims(None).jobs(tmp_path / "plan.yaml")
    assert (alone.model, alone.plan_path, alone.budget.seconds) == (
        "unet",
        tmp_path / "plan.yaml",
        60.0,
    )
    assert run_name(request.of_dims("2,3")) == "cubes-2-models-1-fold"
    with pytest.raises(UsageError, match=r"too short for 2 trainings \(2 models, 1 folds\)"):
        require_enough_time(
            request_for(tmp_path / "cubes.json", tmp_path, Budget(seconds=8.0)).of_dims("2,3")
        )


@pytest.mark.parametrize("text", ["4", "2;3", "", "3d"])
def test_other_dimensions_are_refused(tmp_path: Path, text: str) -> None:
    manifest = write_set(tmp_path)
    words = ["compare", str(manifest), "--dims", text, "--epochs", "1", "--device", "cpu"]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert f"--dims {text!r}: give 2, 3 or 2,3" in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_dimensions_beside_a_named_plan_are_refused(tmp_path: Path) -> None:
    manifest = write_set(tmp_path)
    request = request_for(manifest, tmp_path, Budget(epochs=1), tmp_path / "plan.yaml")
    with pytest.raises(UsageError, match="leave out --dims or --plan"):
        request.of_dims("2,3")


def test_pictures_have_no_3d_plan(tmp_path: Path, shared_data) -> None:
    manifest = build_manifest(shared_data("isbi2012"))
    few = manifest.model_copy(update={"training": manifest.training[:4]})
    write_manifest(few, tmp_path / "em.json")
    request = request_for(tmp_path / "em.json", tmp_path / "out", Budget(epochs=1))
    with pytest.raises(UsageError, match="the images are two-dimensional"):
        plan_for(request.of_dims("3"))


def test_models_of_both_dimensions_are_compared_on_the_same_cases(working_folder: Path) -> None:
    manifest_path = write_set(working_folder / "set", training=4)
    request = request_for(manifest_path, working_folder / "out", Budget(epochs=1)).of_dims("2,3")
    place = plan_for(request)
    flat, solid = (read_plan(request.out_dir / f"plan-{n}d.yaml") for n in (2, 3))
    assert (flat.spatial_dims, solid.spatial_dims) == (2, 3)
    assert flat.slice_axis is not None
    assert not place.exists(), "no third plan"
    jobs, fold_results = request.jobs(place), []
    with comparison("dims", read_manifest(manifest_path), flat, folder=working_folder) as parent:
        for job in jobs:
            with parent.child(job.model, job.fold) as log:
                fold_results.append(steps.train_and_score(job, log))
    assert all(is_done(job) for job in jobs)
    compared, record = steps.conclude(fold_results, request, [])
    assert set(record["architectures"]) == {"unet-2d", "unet-3d"}
    assert any("unet-2d" in text and "unet-3d" in text for text in record["sentences"])
    assert record["best"]["ensembles"] == [], "two held-out cases could show nothing"
    best = ModelPackage.load(request.out_dir / BEST)
    assert best.architecture == "unet"
    assert f"unet-{best.plan.spatial_dims}d" == compared.winner
    assert (
        json.loads((request.out_dir / "comparison.json").read_text(encoding="utf-8"))["winner"]
        == compared.winner
    )


def half_size_hearts(folder: Path, source: Path, *, patients: int) -> Path:
    """One frame of some patients, every second row and column; the first six are held out."""
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    paths = sorted((source / "imagesTr").glob("*_frame01.nii.gz"))[:patients]
    for path in paths:
        for kind in ("imagesTr", "labelsTr"):
            nib.load(source / kind / path.name).slicer[::2, ::2].to_filename(
                folder / kind / path.name
            )
    built = build_manifest(folder, label_names=["right", "wall", "left"])
    cases = [
        case.model_copy(update={"fold": int(number >= 6)})
        for number, case in enumerate(built.training)
    ]
    return write_manifest(
        built.model_copy(update={"training": tuple(cases)}), folder / "hearts.json"
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_hearts_are_segmented_by_2d_and_3d_averaged_where_that_is_better(
    working_folder: Path, shared_data
) -> None:
    manifest_path = half_size_hearts(working_folder / "set", shared_data("cardiac_mr"), patients=10)
    request = request_for(manifest_path, working_folder / "out", Budget(seconds=40.0))
    request = request.of_dims("2,3")
    place = plan_for(request)
    jobs, manifest, fold_results = request.jobs(place), read_manifest(manifest_path), []
    plan = read_plan(request.out_dir / "plan-3d.yaml")
    with comparison("hearts", manifest, plan, folder=working_folder) as parent:
        for job in jobs:
            with parent.child(job.model, job.fold) as log:
                fold_results.append(steps.train_and_score(job, log))
    compared, record = steps.conclude(fold_results, request, [])
    (trial,) = record["best"]["ensembles"]
    assert sorted(trial["models"]) == ["unet-2d", "unet-3d"]
    assert trial["models"][0] == compared.winner
    packages = {one.architecture: ModelPackage.load(one.package_dir) for one in fold_results}
    case = manifest.split(0)[1][0]
    image = manifest.image_paths(case)[0]
    found = [
        Predictor(packages[name], device="cpu", engine="torch").predict(image, probabilities=True)
        for name in trial["models"]
    ]
    mean = (found[0].probs + found[1].probs) / 2
    folder = request.out_dir / "runs" / "+".join(trial["models"]) / "fold0" / "predictions"
    written = read_label(next(folder.glob(f"{case.id}*"))).as_tensor()[0]
    expected = plan.encoding.class_indices(mean)
    values = torch.tensor(plan.encoding.values)[expected.long()]
    assert (written != values).float().mean() < 1e-4  # ties of rounding
    best = ModelPackage.load(request.out_dir / BEST)
    assert len(best.plans) == int(trial["used"])
    assert best.members == 1 + int(trial["used"])
    used = Predictor(best, device="cpu", engine="torch").predict(image)
    assert used.label.shape == found[0].label.shape
    print(record["best"]["sentences"], trial)
