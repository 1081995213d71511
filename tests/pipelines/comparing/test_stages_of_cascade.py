"""compare --cascade: plans of the stages, their trainings in order, and the package of both."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import pytest
from prefect.testing.utilities import prefect_test_harness
from tiny_data import write_set
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.comparing import steps
from pipelines.comparing.best_package import BEST
from pipelines.comparing.first_stage import label_maps_of
from pipelines.comparing.jobs import Request
from pipelines.comparing.kinds import STAGES, plan_of_kind, planned_stages
from pipelines.comparing.training_job import is_done, is_first_stage_done
from pipelines.flows.compare import compare, plan_for, with_stages
from pipelines.flows.runner import run_flow
from pipelines.tracking.runs import comparison
from segmed.errors import UsageError
from segmed.inference import Predictor
from segmed.manifest import build_manifest, read_manifest, write_manifest
from segmed.package import ModelPackage
from segmed.package.cascade import stages_of
from segmed.plan import read_plan, write_plan
from segmed.training import Budget, Settings


@pytest.fixture(scope="module")
def hearts(tmp_path_factory: pytest.TempPathFactory, shared_data) -> Path:
    """Four hearts of every third voxel along each axis, in two folds."""
    source, folder = shared_data("left_atrium"), tmp_path_factory.mktemp("hearts")
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir()
        for path in sorted((source / kind).glob("*.nii.gz"))[:4]:
            nib.load(path).slicer[::3, ::3, ::3].to_filename(folder / kind / path.name)
    built = build_manifest(folder, label_names=["atrium"])
    cases = [
        case.model_copy(update={"fold": number % 2}) for number, case in enumerate(built.training)
    ]
    manifest = built.model_copy(update={"training": tuple(cases)})
    return write_manifest(manifest, folder / "hearts.json")


def request_for(manifest: Path, out_dir: Path, **changes) -> Request:
    return Request.parse(
        manifest,
        models=changes.pop("models", "unet"),
        folds=changes.pop("folds", "all"),
        plan=changes.pop("plan", None),
        budget=changes.pop("budget", Budget(seconds=24.0)),
        out_dir=out_dir,
        settings=Settings(device="cpu", resume=True),
    )


def test_each_stage_is_a_model_with_a_plan_and_runs_of_its_own(
    hearts: Path, tmp_path: Path
) -> None:
    request = request_for(hearts, tmp_path / "out", models="unet,unetpp").of_cascade(True)
    assert request.kinds == STAGES[1:]
    assert request.of_cascade(False).kinds == request.kinds
    request = with_stages(request)
    place = plan_for(request)
    assert planned_stages(place) == request.kinds
    jobs = request.jobs(place)
    assert [job.model for job in jobs[::2]] == [
        f"{name}-{kind}" for name in ("unet", "unetpp") for kind in request.kinds
    ]
    assert {job.plan_path.name for job in jobs} == {f"plan-{kind}.yaml" for kind in request.kinds}
    assert not any(is_first_stage_done(job, jobs) for job in jobs)
    plans = {kind: read_plan(tmp_path / "out" / f"plan-{kind}.yaml") for kind in request.kinds}
    assert plans["cascade"].refines
    assert plans["lowres"].preprocessing.spacing_mm > plans["cascade"].preprocessing.spacing_mm


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--folds", "0"), "--cascade needs all folds"),
        (("--dims", "2,3"), "leave out --dims"),
        (("--plan", "plan.yaml"), "leave out --cascade or --plan"),
    ],
    ids=["folds", "dims", "plan"],
)
def test_what_contradicts_a_cascade_is_refused(tmp_path: Path, words, fault: str) -> None:
    manifest = write_set(tmp_path)
    words = [str(tmp_path / word) if word.endswith(".yaml") else word for word in words]
    line = ["compare", str(manifest), "--cascade", *words, "--epochs", "1", "--device", "cpu"]
    result = CliRunner().invoke(app, [*line, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert fault in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_a_set_without_a_use_for_a_cascade_is_refused_before_any_training(tmp_path: Path) -> None:
    request = request_for(write_set(tmp_path), tmp_path / "out").of_cascade(True)
    with pytest.raises(UsageError, match="a first stage would show no more"):
        with_stages(request)
    assert not list((tmp_path / "out").glob("plan*"))


def check_results(request: Request, record: dict) -> None:
    """Check the files that a comparison with a cascade leaves in its folder."""
    assert set(record["architectures"]) == {"unet-lowres", "unet-cascade"}
    assert record["failures"] == []
    assert all(is_done(job) for job in request.jobs(request.out_dir / "plan.yaml"))
    manifest = read_manifest(request.manifest_path)
    maps = label_maps_of(request.out_dir / "runs" / "unet-lowres", manifest.folds)
    assert set(maps) == {case.id for case in manifest.training}
    assert all(path.is_file() for path in maps.values())
    second, first = stages_of(ModelPackage.load(request.out_dir / "ensembles" / "unet-cascade"))
    assert (second.members, first.members) == (2, 2)
    run = ModelPackage.load(request.out_dir / "runs" / "unet-cascade" / "fold1" / "package")
    alone = ModelPackage.load(request.out_dir / "runs" / "unet-lowres" / "fold1" / "package")
    assert stages_of(run)[1].float32_hash == alone.float32_hash, "of the same fold"
    for entry in record["architectures"].values():
        assert entry["labels"]["mean"]["dice"]["n"] == 4
    best = ModelPackage.load(request.out_dir / BEST)
    image = manifest.image_paths(manifest.training[0])[0]
    assert Predictor(best, device="cpu", engine="torch").predict(image).label.shape[0] == 1


def test_a_cascade_is_trained_scored_and_packaged(hearts: Path, working_folder: Path) -> None:
    request = with_stages(request_for(hearts, working_folder / "out").of_cascade(True))
    request, place = replace(request, budget=Budget(epochs=1)), plan_for(request)
    for kind in STAGES[1:]:
        planned = read_plan(plan_of_kind(place, kind))
        recipe = planned.recipe.model_copy(update={"iterations_per_epoch": 4})
        write_plan(planned.model_copy(update={"recipe": recipe}), plan_of_kind(place, kind))
    jobs = request.jobs(place)
    plan, results = read_plan(jobs[0].plan_path), []
    with comparison("hearts", read_manifest(hearts), plan, folder=working_folder) as parent:
        for job in jobs:
            assert is_first_stage_done(job, jobs) == (job.kind == "cascade")
            with parent.child(job.model, job.fold) as log:
                results.append(steps.train_and_score(job, log))
    _, record = steps.conclude(results, request, [])
    check_results(request, record)
    first, second = jobs[0], jobs[2]
    assert is_done(second)
    stale = first.run_dir.with_name("fold7")
    shutil.copytree(first.run_dir, stale)
    assert is_done(second), "a run of a fold of an earlier split"
    old = label_maps_of(first.run_dir.parent, read_manifest(hearts).folds)
    assert not any(path.is_relative_to(stale) for path in old.values())
    other = replace(first, settings=replace(first.settings, seed=5))
    assert not is_first_stage_done(second, [other, *jobs[1:]]), "its result is of another seed"
    (first.run_dir / "package" / "package.json").write_text('{"hash": "other"}', encoding="utf-8")
    assert not is_done(second), "it refines another first stage now"


@pytest.fixture
def temporary_server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_flow_trains_second_stages_after_all_first_ones(
    hearts: Path, working_folder: Path, temporary_server: None
) -> None:
    request = request_for(hearts, working_folder / "out").of_cascade(True)
    record = run_flow(compare, request)
    check_results(with_stages(request), record)
    again = run_flow(compare, request)
    assert again["architectures"] == record["architectures"], "nothing is done twice"
