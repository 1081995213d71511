"""Ensembles of models, judged case by case on what every fold held out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_data import hippocampus_package, tiny_plan

from pipelines.comparing.best_package import BEST, choose_best
from pipelines.comparing.ensembling import RESULT, choose_models
from pipelines.comparing.jobs import Request
from segmed.inference import Predictor
from segmed.io import grid_of, read_label, write_label
from segmed.manifest import Manifest, read_manifest, read_reference
from segmed.metrics import evaluate_case, scores_table, write_table
from segmed.models import build_model
from segmed.package import PLAN_FILE, ModelPackage
from segmed.plan import Plan, read_plan, write_plan
from segmed.report.model_comparison import FoldResult, ModelComparison, compare_fold_results
from segmed.training import Budget, Settings

Fault = Callable[[np.ndarray, int], None]


def shifted(axis: int) -> Fault:
    """Structures one voxel away from their place."""

    def fault(label: np.ndarray, number: int) -> None:
        label[:] = np.roll(label, 1, axis=axis)

    return fault


def right(label: np.ndarray, number: int) -> None:
    """No fault."""


def package_of(architecture: str, seed: int) -> ModelPackage:
    """An untrained network under the plan that all share; `unet-2d` is under one of slices."""
    if architecture == "unet":
        return hippocampus_package(seed)
    if architecture == "unet-2d":
        return flat_package(seed)
    options = dict(tiny_plan().networks[architecture].options)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_model(architecture, spatial_dims=3, in_channels=1, num_classes=3, **options)
    return ModelPackage(architecture, options, tiny_plan(), network.state_dict())


def flat_package(seed: int) -> ModelPackage:
    """An untrained network for slices of the same images."""
    fields = {**tiny_plan().model_dump(), "spatial_dims": 2, "slice_axis": 1}
    plan = Plan.model_validate({**fields, "patch_size": (48, 32), "networks": {}})
    options = {"widths": [4, 8], "strides": [[1, 1], [2, 2]]}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_model("unet", spatial_dims=2, in_channels=1, num_classes=3, **options)
    return ModelPackage("unet", options, plan, network.state_dict())


def fold_result(manifest: Manifest, architecture: str, folder: Path, fault: Fault) -> FoldResult:
    """A result of fold 0 whose predictions are the references with a fault."""
    predictions, rows = {}, []
    for number, case in enumerate(manifest.split(0)[1]):
        reference = read_reference(manifest, manifest.label_path(case))
        values = np.asarray(reference)[0].copy()
        fault(values, number)
        predictions[case.id] = folder / "predictions" / f"{case.id}.nii.gz"
        predictions[case.id].parent.mkdir(parents=True, exist_ok=True)
        write_label(predictions[case.id], torch.from_numpy(values), like=reference)
        rows += evaluate_case(
            values,
            reference[0],
            labels=manifest.encoding,
            spacing_mm=grid_of(reference).spacing_mm,
            case_id=case.id,
        )
    table = scores_table(rows)
    write_table(table, folder / "scores.parquet")
    place = package_of(architecture.split("+", maxsplit=1)[0], 0).save(folder / "package")
    return FoldResult(architecture, 0, table, [], place, predictions)


@pytest.fixture
def manifest(sample_manifest_path: Path) -> Manifest:
    found = read_manifest(sample_manifest_path)
    cases = tuple(
        case.model_copy(update={"fold": n // 14}) for n, case in enumerate(found.training)
    )
    return found.model_copy(update={"training": cases})


@pytest.fixture
def request_for(sample_manifest_path: Path, tmp_path: Path) -> Request:
    request = Request.parse(
        sample_manifest_path,
        models="unet,unetpp",
        folds="0",
        plan=None,
        budget=Budget(epochs=1),
        out_dir=tmp_path / "out",
        settings=Settings(device="cpu"),
    )
    return replace(request, postprocess=False)


def compared_with(manifest: Manifest, request: Request, **faults: Fault) -> ModelComparison:
    """A comparison of architectures with faults, the ensemble's result beside it as kept."""
    results = {}
    for joined, fault in faults.items():
        name = joined.replace("_", "+")
        folder = request.out_dir / "runs" / name / "fold0"
        results[name] = fold_result(manifest, name, folder, fault)
        if "+" in name:
            record = {
                "identity": [package_of(part, 0).hash for part in name.split("+")],
                "seconds_per_case": 1.0,
                "predictions": {k: path.name for k, path in results[name].predictions.items()},
            }
            (folder / RESULT).write_text(json.dumps(record), encoding="utf-8")
    return compare_fold_results([one for name, one in results.items() if "+" not in name])


def test_architectures_that_are_better_together_become_one_package(
    manifest: Manifest, request_for: Request
) -> None:
    compared = compared_with(
        manifest, request_for, unet=shifted(0), unetpp=shifted(1), unet_unetpp=right,
        unetpp_unet=right,
    )  # fmt: skip
    record, (table,) = choose_best(compared, manifest, request_for)
    assert sorted(record["models"]) == ["unet", "unetpp"]
    (trial,) = record["ensembles"]
    assert trial["used"]
    assert trial["dice_after"] == 1.0 > trial["dice_before"]
    assert "averaged are better than" in record["sentences"][0]
    assert "chosen on these cases among 1 ensembles" in record["sentences"][0]
    assert table.rows[0][-1] == "used"
    best = ModelPackage.load(request_for.out_dir / BEST)
    assert best.members == 2
    assert best.architecture == "+".join(record["models"])
    assert best.provenance["held_out_scores"]["structures"]["mean"]["dice"]["mean"] == 1.0


def test_2d_and_3d_that_are_better_together_become_one_package_of_two_plans(
    manifest: Manifest, request_for: Request
) -> None:
    faults = {
        "unet": shifted(0),
        "unet-2d": shifted(1),
        "unet_unet-2d": right,
        "unet-2d_unet": right,
    }
    compared = compared_with(manifest, request_for, **faults)
    record, _ = choose_best(compared, manifest, request_for)
    assert sorted(record["models"]) == ["unet", "unet-2d"]
    assert record["ensembles"][0]["used"]
    assert record["members"] == 2
    best = ModelPackage.load(request_for.out_dir / BEST)
    dims = [plan.spatial_dims for plan in (best.plan, *best.plans)]
    assert sorted(dims) == [2, 3]
    assert dims[0] == (2 if compared.winner == "unet-2d" else 3)
    assert best.provenance["held_out_scores"]["structures"]["mean"]["dice"]["mean"] == 1.0
    case = manifest.split(0)[1][0]
    image = manifest.image_paths(case)[0]
    members = [package_of(name, 0) for name in record["models"]]
    apart = [
        Predictor(one, engine="torch", device="cpu").predict(image, probabilities=True).probs
        for one in members
    ]
    found = Predictor(best, engine="torch", device="cpu").predict(image, probabilities=True).probs
    torch.testing.assert_close(found, (apart[0] + apart[1]) / 2, rtol=0, atol=1e-6)


def test_models_of_other_crops_are_not_tried_together(
    manifest: Manifest, request_for: Request
) -> None:
    compared = compared_with(manifest, request_for, **{"unet": shifted(0), "unet-2d": shifted(1)})
    (flat,) = (one for one in compared.fold_results if one.architecture == "unet-2d")
    plan = read_plan(flat.package_dir / PLAN_FILE)
    rules = plan.preprocessing.model_copy(update={"crop_nonzero": True})
    write_plan(plan.model_copy(update={"preprocessing": rules}), flat.package_dir / PLAN_FILE)
    assert choose_models(compared, manifest, request_for).trials == ()


def test_single_model_stays_where_the_mean_is_no_better(
    manifest: Manifest, request_for: Request
) -> None:
    compared = compared_with(
        manifest, request_for, unet=right, unetpp=shifted(1), unet_unetpp=shifted(2)
    )
    record, _ = choose_best(compared, manifest, request_for)
    assert record["models"] == ["unet"]
    assert not record["ensembles"][0]["used"]
    assert record["sentences"] == [
        "ensembles tried on the held-out cases: unet with unetpp; none is significantly better"
    ]
    assert ModelPackage.load(request_for.out_dir / BEST).members == 1


def test_gain_on_a_few_cases_is_no_evidence(manifest: Manifest, request_for: Request) -> None:
    def right_in_three(label: np.ndarray, number: int) -> None:
        if number > 2:
            shifted(0)(label, number)

    compared = compared_with(
        manifest, request_for, unet=shifted(0), unetpp=shifted(2), unet_unetpp=right_in_three,
        unetpp_unet=right_in_three,
    )  # fmt: skip
    if compared.winner != "unet":
        pytest.fail("the first model was expected to win")
    chosen = choose_models(compared, manifest, request_for)
    assert chosen.trials[0].after > chosen.trials[0].before
    assert chosen.models == ("unet",)


def test_no_ensemble_is_tried_where_it_could_not_be_shown(
    manifest: Manifest, request_for: Request
) -> None:
    cases = tuple(
        case.model_copy(update={"group": f"patient{number % 3}"})
        for number, case in enumerate(manifest.training)
    )
    few = manifest.model_copy(update={"training": cases})
    compared = compared_with(few, request_for, unet=shifted(0), unetpp=shifted(1))
    assert choose_models(compared, few, request_for).trials == ()
    asked_not = replace(request_for, ensembles=False)
    compared = compared_with(manifest, request_for, unet=shifted(0), unetpp=shifted(1))
    assert choose_models(compared, manifest, asked_not).trials == ()


def test_held_out_cases_are_segmented_by_the_mean_of_both_networks(
    manifest: Manifest, request_for: Request
) -> None:
    compared = compared_with(manifest, request_for, unet=shifted(0), unetpp=shifted(1))
    chosen = choose_models(compared, manifest, request_for)
    (trial,) = chosen.trials
    folder = request_for.out_dir / "runs" / "+".join(trial.models) / "fold0"
    assert json.loads((folder / RESULT).read_text(encoding="utf-8"))["identity"] == [
        package_of(name, 0).hash for name in trial.models
    ]
    case = manifest.split(0)[1][0]
    both = Predictor([package_of(n, 0) for n in trial.models], engine="torch", device="cpu")
    expected = both.predict(manifest.image_paths(case)[0]).label
    written = read_label(folder / "predictions" / f"{case.id}.nii.gz")
    assert np.array_equal(np.asarray(written), np.asarray(expected))
