"""Train, evaluate, read and look: the calls of a notebook, on a tiny real training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_data import tiny_plan, write_set

import segmed
from segmed.errors import GeometryError, ManifestError, UsageError
from segmed.manifest import Manifest, read_manifest
from segmed.metatensor import MetaTensor
from segmed.training import Budget, EpochResult, Settings
from segmed.training.settings import TrainingOptions


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(write_set(tmp_path_factory.mktemp("set"), training=4, test=1))


@pytest.fixture(scope="module")
def package(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> segmed.ModelPackage:
    epochs: list[EpochResult] = []
    package = segmed.train(
        manifest,
        tiny_plan(),
        architecture="unet",
        fold=0,
        budget=Budget(epochs=2),
        out=tmp_path_factory.mktemp("run"),
        on_epoch=epochs.append,
        device="cpu",
        seed=3,
    )
    assert [epoch.epoch for epoch in epochs] == [1, 2]
    return package


def test_package_of_a_training_is_returned(package: segmed.ModelPackage) -> None:
    assert package.provenance["seed"] == 3
    assert package.provenance["steps"] == 6
    assert repr(package) == (
        "ModelPackage(unet, 3D for 'cubes': anterior, posterior; 6 steps, fold 0; "
        f"{package.hash[:12]})"
    )


def test_options_of_train_are_the_settings() -> None:
    types = {name: str(of) for name, of in TrainingOptions.__annotations__.items()}
    ours = {name: f"ForwardRef({of!r}, module={Settings.__module__!r})" for name, of in
            Settings.__annotations__.items()}  # fmt: skip
    assert types == ours


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"devise": "cpu"}, "unknown option of train 'devise': known are.*device"),
        ({"architecture": "unett"}, "unknown model 'unett'.*register_architecture"),
        ({"architecture": "fcn8s"}, "unknown network of this plan 'fcn8s'"),
        ({"fold": 7}, "fold 7 is not in manifest 'cubes': its folds are 0, 1"),
        ({"budget": "soon"}, "budget 'soon' is not a duration"),
    ],
)
def test_wrong_call_of_train_is_refused(
    manifest: Manifest, tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    call = {"architecture": "unet", "fold": 0, "budget": "10s", "out": tmp_path / "run"} | changed
    with pytest.raises(UsageError, match=message):
        segmed.train(manifest, tiny_plan(), **call)
    assert not (tmp_path / "run").exists()


def test_registered_name_without_a_network_in_the_plan_asks_for_a_new_plan(
    manifest: Manifest, tmp_path: Path, monai_networks: None
) -> None:
    with pytest.raises(UsageError, match=r"no network 'segresnet'.*make the plan again"):
        segmed.train(
            manifest, tiny_plan(), architecture="segresnet", fold=0, budget="9s", out=tmp_path
        )


def test_held_out_cases_are_scored_unless_others_are_named(
    manifest: Manifest, package: segmed.ModelPackage, tmp_path: Path
) -> None:
    held_out = {case.id for case in manifest.split(0)[1]}
    found = segmed.evaluate(package, manifest, device="cpu")
    assert set(found.table["case"]) == held_out
    assert found.predictions == {}
    assert repr(found).startswith("Evaluated(unet: 2 cases, mean Dice anterior 0.")
    assert found._repr_png_().startswith(b"\x89PNG")
    kept = segmed.evaluate(package, manifest, cases=manifest.test, out=tmp_path, device="cpu")
    assert [path.name for path in kept.predictions.values()] == ["case4.nii.gz"]
    assert kept.predictions["case4"].is_file()


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"fold": 1}, "2 of 2 cases were trained on, such as 'case1'.*score fold=0"),
        ({"cases": ["case0", "case3"]}, "1 of 2 cases were trained on, such as 'case3'"),
        ({"cases": ["case9"]}, "no case 'case9' in manifest 'cubes': its 5 cases are case0"),
        ({"fold": 5}, "fold 5 is not in manifest 'cubes'"),
        ({"fold": 0, "cases": ["case0"]}, "give fold=0 or cases=, not both"),
    ],
)
def test_cases_that_were_trained_on_are_never_scored(
    manifest: Manifest, package: segmed.ModelPackage, chosen: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        segmed.evaluate(package, manifest, device="cpu", **chosen)


def test_package_of_other_data_needs_a_choice_of_cases(
    package: segmed.ModelPackage, tmp_path: Path
) -> None:
    other = read_manifest(write_set(tmp_path / "other", training=2))
    with pytest.raises(UsageError, match=r"held out no single fold.*give fold= or cases="):
        segmed.evaluate(package, other, device="cpu")
    assert len(segmed.evaluate(package, other, fold=1, device="cpu").table) >= 2


def test_case_is_read_with_its_label_on_one_grid(manifest: Manifest) -> None:
    pair = manifest.read("case0")
    image, label = pair
    assert label is not None
    assert image.shape == label.shape == (1, 16, 16, 16)
    assert (pair.image is image, pair.label is label, pair.case) == (True, True, "case0")
    assert repr(pair) == (
        "LabelledImage('case0': 1 channel of 16x16x16 voxels of 1x1x1 mm; "
        "label: anterior, posterior)"
    )
    assert pair._repr_png_().startswith(b"\x89PNG")
    bare = manifest.training[0].model_copy(update={"label": None})
    assert manifest.read(bare).label is None
    assert "no label" in repr(manifest.read(bare))


def test_case_that_cannot_be_read_is_named(manifest: Manifest) -> None:
    gone = manifest.training[0].model_copy(update={"image": ("gone.nii",)})
    with pytest.raises(ManifestError, match=r"case case0: .*gone\.nii"):
        manifest.read(gone)


def test_everything_has_one_line(manifest: Manifest) -> None:
    line = (
        "Manifest('cubes': 4 training cases in 2 folds, 1 test case; labels anterior, "
        "posterior; channels T1)"
    )
    assert repr(manifest) == line
    assert str(manifest) == line
    assert repr(manifest.training[1]) == "Case('case1': 1 image, label, fold 1)"
    assert repr(tiny_plan()) == (
        "Plan('cubes': 3D, patch 16x16x16 at 1x1x1 mm, 1 channel, 3 classes; networks unet, unetpp)"
    )


def test_paths_do_in_the_place_of_manifest_and_package(
    manifest: Manifest, package: segmed.ModelPackage, tmp_path: Path
) -> None:
    stored, folder = manifest.root / "cubes.json", package.save(tmp_path / "package")
    by_path = segmed.evaluate(folder, str(stored), device="cpu")
    pd.testing.assert_frame_equal(
        by_path.table, segmed.evaluate(package, manifest, device="cpu").table
    )
    assert segmed.make_plan(stored) == segmed.make_plan(manifest)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, out: segmed.make_plan(3), "manifest is a int: give a Manifest"),
        (lambda m, out: segmed.make_plan(m, spatial_dims=4), "spatial_dims must be 2 or 3, got 4"),
        (lambda m, out: segmed.make_plan(m, size="huge"), "size 'huge': known are.*residual"),
        (lambda m, out: trained(m, out, plan=None), "plan is a NoneType: give a Plan"),
        (lambda m, out: trained(m, out, plan=out / "plan.yaml"), "plan.yaml"),
        (lambda m, out: trained(None, out), "manifest is a NoneType"),
        (lambda m, out: trained(m, out, budget=5), "budget is 5: write a duration such as '90s'"),
        (lambda m, out: segmed.Predictor(str(out)), r"got a str: give ModelPackage.load\(path\)"),
        (lambda m, out: segmed.Predictor([3]), "got a int"),
    ],
)
def test_arguments_of_another_type_are_refused_by_name(
    call, message: str, manifest: Manifest, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        call(manifest, tmp_path)


PLAN = tiny_plan()


def trained(manifest, out: Path, *, plan=PLAN, budget="10s") -> None:
    segmed.train(manifest, plan, architecture="unet", fold=0, budget=budget, out=out)


@pytest.mark.parametrize(
    ("change", "reason"),
    [((0, 1, 0.4), "shear"), ((2, 2, 4000.0), "absurd_spacing"), ((1, 1, 1e-6), "absurd_spacing")],
)
def test_an_array_is_held_to_the_geometry_of_files(
    change: tuple[int, int, float], reason: str, package: segmed.ModelPackage
) -> None:
    affine = np.eye(4)
    affine[change[0], change[1]] = change[2]
    predictor = segmed.Predictor(package, device="cpu", engine="torch")
    voxels = np.zeros((16, 16, 16), np.float32)
    for image, given in ((voxels, affine), (MetaTensor(voxels[None], affine=affine), None)):
        with pytest.raises(GeometryError) as caught:
            predictor.predict(image, affine=given)
        assert caught.value.reason == reason
