"""A set of regions with unannotated voxels from its files to packages, predictions and scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from nested_set import IGNORED, REGIONS, nested_case, nested_manifest, nested_plan

from segmed.errors import UsageError
from segmed.evaluation import evaluate
from segmed.inference import Predictor, SlabInferer
from segmed.manifest import Manifest
from segmed.package import ModelPackage
from segmed.package.ensemble import join_packages
from segmed.plan import make_plan, plan_hash, read_plan, write_plan
from segmed.training import Budget, train
from segmed.training.conditions import check_request
from segmed.training.data import load_cases, make_batch
from segmed.training.device import choose_device
from segmed.training.sampling import TrainingCase, case_shares, draw_patches, step_generator
from segmed.training.validation import predict_probs


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return nested_manifest(tmp_path_factory.mktemp("shells"))


@pytest.fixture(scope="module")
def package(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    out = tmp_path_factory.mktemp("trained")
    plan = nested_plan(steps=20)
    return train(
        manifest, plan, architecture="unet", fold=0, budget=Budget(epochs=1), out=out, device="cpu"
    )


def test_regions_are_learned_painted_and_scored(manifest: Manifest, package: ModelPackage) -> None:
    found = Predictor(package, device="cpu", engine="torch").predict(
        manifest.root / "case0_image.nii", probabilities=True
    )
    label, probs = np.asarray(found.label)[0], found.probs.numpy()
    assert probs.shape == (3, *label.shape)
    assert set(np.unique(label)) <= {0, 1, 2, 3}
    for region, mask in zip(REGIONS, probs > 0.5, strict=True):
        assert (region.mask(label) | ~mask).all()  # painted, and what lies within painted over it
    scores = evaluate(package, manifest, fold=0, device="cpu").table
    dice = scores.groupby("label")["dice"].mean()
    assert dice["whole"] > 0.2
    assert list(dice.index) == ["core", "enhancing", "whole"]
    truth = nested_case(0)[1]
    row = scores[(scores["case"] == "case0") & (scores["label"] == "core")].iloc[0]
    assert row["voxels_reference"] == np.isin(truth, (2, 3)).sum()
    assert row["voxels_image"] == (truth != IGNORED).sum()


def test_ensembles_average_the_regions(manifest: Manifest, package: ModelPackage) -> None:
    other = {name: value * 0.9 for name, value in package.state.items()}
    second = ModelPackage("unet", package.options, package.plan, other)
    first = ModelPackage("unet", package.options, package.plan, package.state)
    joined = join_packages([first, second]).build()
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        mean = (first.build()(image).sigmoid() + second.build()(image).sigmoid()) / 2
        torch.testing.assert_close(joined(image).sigmoid(), mean, atol=1e-5, rtol=1e-4)


def test_validation_and_the_inferer_of_a_plan_blend_sigmoids(package: ModelPackage) -> None:
    plan, network = package.plan, package.build().eval()
    image = torch.randn((1, *plan.patch_size), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(image[None]).sigmoid()[0]
        inferred = SlabInferer.of(plan)(image[None], network)[0]
    validated = predict_probs(network, image, plan, choose_device("cpu"))
    torch.testing.assert_close(inferred, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(validated, expected, atol=1e-5, rtol=1e-4)


def test_plan_and_package_keep_regions(tmp_path: Path, package: ModelPackage) -> None:
    plan = read_plan(write_plan(package.plan, tmp_path / "plan.yaml"))
    assert plan.labels == REGIONS
    assert plan.ignore_value == IGNORED
    assert plan.num_classes == 3
    assert plan_hash(plan) == plan_hash(package.plan)
    plain = plan.model_copy(update={"ignore_value": None})
    assert plan_hash(plain) != plan_hash(plan)
    saved = package.save(tmp_path / "package")
    assert ModelPackage.load(saved).hash == package.hash


def test_a_plan_says_why(manifest: Manifest) -> None:
    plan = make_plan(manifest)
    assert "sigmoid" in plan.reasons["labels"]
    assert "not annotated" in plan.reasons["ignore_value"]
    assert plan.encoding == manifest.encoding
    assert sum(plan.fingerprint["class_share"]) < 0.5  # the unannotated slab is no foreground


def test_a_plan_for_other_regions_is_refused(manifest: Manifest) -> None:
    plan = nested_plan(steps=1)
    ignoring = manifest.model_copy(update={"ignore_value": None})
    flat = manifest.model_copy(
        update={"labels": tuple(one.model_copy(update={"region": ()}) for one in REGIONS)}
    )
    for other, message in ((ignoring, "ignored value 9"), (flat, "region of 1, 2, 3")):
        with pytest.raises(UsageError, match=message):
            check_request(other, plan, "unet", 0)


def test_patches_are_centred_on_annotated_voxels(manifest: Manifest, tmp_path: Path) -> None:
    plan = nested_plan(steps=1)
    cases = load_cases(manifest, manifest.training, plan, tmp_path)
    generator = step_generator(0, 0)
    draws = draw_patches(cases, plan, generator, batch_size=400)
    labels = [int(cases[draw.case].label[draw.centre]) for draw in draws]
    assert plan.encoding.ignore_index == 4
    assert set(labels) == {0, 1, 2, 3}
    assert cases[0].classes == (1, 2, 3, 4)
    batch = make_batch(cases, plan, seed=0, step=0, share=slice(None))
    assert set(batch.label.unique().tolist()) <= {0, 1, 2, 3, 4}


def test_cases_of_rare_labels_are_drawn_more_often() -> None:
    rare = nested_plan(steps=1)
    recipe = rare.recipe.model_copy(update={"rare_labels": {3: 5.0, 2: 2.0}})
    rare = rare.model_copy(update={"recipe": recipe})
    labels = [torch.tensor([[[0, 1]]]), torch.tensor([[[1, 2]]]), torch.tensor([[[2, 3]]])]
    cases = [
        TrainingCase.of(str(number), label[None].float(), label)
        for number, label in enumerate(labels)
    ]
    np.testing.assert_allclose(case_shares(cases, rare), np.array([1, 2, 5]) / 8)
    assert case_shares(cases, nested_plan(steps=1)) is None
    draws = draw_patches(cases, rare, step_generator(0, 0), batch_size=4000)
    counts = np.bincount([draw.case for draw in draws])
    np.testing.assert_allclose(counts / 4000, np.array([1, 2, 5]) / 8, atol=0.03)
