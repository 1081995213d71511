"""Training of a second stage: its input has the label map of the first, which is only moved."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from narrow_training import start
from test_resident_cases import CPU, QUIET, cases_of, plan_of
from tiny_data import hippocampus_package

from segmed.errors import ManifestError, TrainingError, UsageError
from segmed.inference import Predictor
from segmed.manifest import Manifest
from segmed.package import ModelPackage
from segmed.package.cascade import stages_of
from segmed.plan import Augmentation, Plan
from segmed.preprocessing import PreparedCases, PreparedDataset
from segmed.training.data import augment, load_cases, make_batch
from segmed.training.device import Device
from segmed.training.gathering import gather_patches
from segmed.training.resident import ResidentCases, patch_rows
from segmed.training.sampling import TrainingCase
from segmed.training.settings import FirstStage
from segmed.training.shading import shade_images

LOUD = dict.fromkeys(QUIET, 1.0)


@pytest.fixture(scope="module")
def second_plan(manifest: Manifest, plan: Plan) -> Plan:
    return plan.model_copy(update={"refines": True})


@pytest.fixture(scope="module")
def first(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> FirstStage:
    """The labels themselves as label maps, and an untrained network."""
    folder = tmp_path_factory.mktemp("first")
    package = hippocampus_package()
    plan = package.plan.model_copy(
        update={"labels": manifest.labels, "channels": manifest.channels}
    )
    made = ModelPackage("unet", package.options, plan, package.state)
    maps = {}
    for case in manifest.training:
        source = manifest.label_path(case)
        assert source is not None
        maps[case.id] = Path(shutil.copy(source, folder / f"{case.id}.nii.gz"))
    return FirstStage(made.save(folder / "package"), maps)


def test_prepared_cases_have_the_label_map_as_channels(
    manifest: Manifest, second_plan: Plan, first: FirstStage, cache_dir: Path
) -> None:
    cases = load_cases(
        manifest, manifest.training, second_plan, cache_dir, label_maps=first.label_maps
    )
    plain = load_cases(
        manifest, manifest.training, second_plan.model_copy(update={"refines": False}), cache_dir
    )
    for one, other in zip(cases, plain, strict=True):
        assert one.image.shape[0] == 3
        assert torch.equal(one.image[:1], other.image)
        for number in (1, 2):
            assert torch.equal(one.image[number], (one.label == number).float())


def test_another_label_map_makes_another_entry(
    manifest: Manifest, second_plan: Plan, first: FirstStage, tmp_path: Path
) -> None:
    a, b = (manifest.training[n].id for n in (0, 1))
    prepared = PreparedCases(manifest, second_plan, tmp_path, label_maps=first.label_maps)
    prepared.prepare()
    assert prepared.missing() == []
    moved = {**first.label_maps, a: first.label_maps[b]}
    again = PreparedCases(manifest, second_plan, tmp_path, label_maps=moved)
    assert [case.id for case in again.missing()] == [a]
    with pytest.raises(ManifestError, match=a):
        again.prepare()  # it is on the grid of another image


def test_a_package_of_both_stages_is_trained_and_resumed(
    manifest: Manifest, second_plan: Plan, first: FirstStage, tmp_path: Path, cache_dir: Path
) -> None:
    results = list(start(manifest, second_plan, tmp_path / "run", cache_dir, first_stage=first))
    assert results[0].mean_dice > 0.9, "the label maps are the labels, and training starts there"
    package = ModelPackage.load(tmp_path / "run" / "package")
    second, found = stages_of(package)
    assert found.float32_hash == ModelPackage.load(first.package).float32_hash
    assert second.plan == second_plan
    assert package.provenance["first_stage"] == ModelPackage.load(first.package).hash
    case = manifest.split(0)[1][0]
    predictor = Predictor(package, device="cpu", engine="torch")
    assert predictor.predict(manifest.image_paths(case)[0]).label.shape[0] == 1
    other = first.package.with_name("other")
    ModelPackage(
        "unet", package_of(first).options, package_of(first).plan, hippocampus_package(5).state
    ).save(other)
    changed = FirstStage(other, first.label_maps)
    with pytest.raises(TrainingError, match="first_stage"):
        list(
            start(
                manifest, second_plan, tmp_path / "run", cache_dir, first_stage=changed, resume=True
            )
        )


def package_of(first: FirstStage) -> ModelPackage:
    return ModelPackage.load(first.package)


@pytest.mark.parametrize("missing", ["all", "one", "unasked"])
def test_a_training_without_its_first_stage_is_refused(
    manifest: Manifest, second_plan: Plan, plan: Plan, first: FirstStage, tmp_path: Path, missing
) -> None:
    few = FirstStage(
        first.package, {manifest.training[0].id: first.label_maps[manifest.training[0].id]}
    )
    given = {"all": None, "one": few, "unasked": first}[missing]
    words = {
        "all": "refines the label map of a first stage, and none is given",
        "one": "4 training cases have no label map of the first stage",
        "unasked": "does not refine a first stage, and one is given",
    }
    used = plan if missing == "unasked" else second_plan
    with pytest.raises(UsageError, match=words[missing]):
        list(start(manifest, used, tmp_path / "run", tmp_path / "cache", first_stage=given))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("made", [PreparedCases, PreparedDataset])
def test_prepared_cases_without_label_maps_are_refused(
    manifest: Manifest, second_plan: Plan, tmp_path: Path, made
) -> None:
    with pytest.raises(UsageError, match="segmed compare --cascade"):
        made(manifest, second_plan, tmp_path)


def refining(plan: Plan) -> Plan:
    """A plan of one image channel and two structures."""
    return plan.model_copy(update={"refines": True, "channels": plan.channels[:1]})


def cases_with_maps(shape: tuple[int, ...]) -> Iterator[TrainingCase]:
    for case in cases_of(shape):
        maps = torch.stack([(case.label == number).float() for number in (1, 2)])
        image = torch.cat([case.image[:1] + 3.0, maps])  # no value of the image is 0
        yield TrainingCase.of(case.id, image, case.label)


@pytest.mark.parametrize("way", ["cut", "gathered"])
def test_intensities_change_and_label_maps_only_move(way: str) -> None:
    augmentation = Augmentation(
        flip_axes=(0, 1, 2), rotation_deg=(0.0, 0.0, 0.0), scale=0.0, p_spatial=0.0, **LOUD
    )
    patch = (16, 16, 16)
    plan, cases = refining(plan_of(patch, augmentation, None)), list(cases_with_maps((18, 12, 40)))
    resident = ResidentCases.of(cases, plan, CPU)
    for step in range(3):
        batch = make_batch(cases, plan, seed=1, step=step, share=slice(0, 4))
        if way == "cut":
            image, label = augment(batch, plan, Device(CPU, None, "a CPU"))
        else:
            rows = patch_rows(cases, resident, plan, seed=1, step=step)
            cut, label, factors = gather_patches(resident, rows.places, rows.floats, plan)
            image = shade_images(cut, factors, plan)
            assert not torch.equal(image[:, :1], cut[:, :1])
        for number in (1, 2):
            assert torch.equal(image[:, number], (label == number).float()), "border included"
        assert (image[:, 0] != 0).float().mean() > 0.5
