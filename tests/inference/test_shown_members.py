"""Labels of the members of a package beside their mean, and the agreement that is counted."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from tiny_data import affine_from

from segmed.encoding import LabelEncoding
from segmed.errors import ModelError, UsageError
from segmed.inference import Predictor
from segmed.inference.choice import EngineRequest, make_engine
from segmed.inference.cuda_engine import CudaEngine
from segmed.inference.engine import softmax
from segmed.inference.openvino_engine import _require_equal
from segmed.inference.shown_members import (
    ShownMembers,
    beside_members,
    member_pairs,
    shown_members,
)
from segmed.models.joined import JoinedNetworks, JoinedPart
from segmed.package import ModelPackage
from segmed.package.card import PackagePart
from segmed.package.ensemble import join_packages
from segmed.plan import Inference
from segmed.quality.fitting import QualityCase, StructureTruth, fit_quality
from segmed.quality.identity import PREDICTED_QUALITY
from segmed.structures import LabelClass

CPU = torch.device("cpu")
REGIONS = (
    LabelClass(name="whole", value=2, region=(2, 5)),
    LabelClass(name="core", value=5),
)
FORMS = [(None, "probabilities"), (None, "logits"), (REGIONS, "probabilities"), (REGIONS, "logits")]


def volume(shape: tuple[int, int, int] = (8, 16, 12), seed: int = 4) -> MetaTensor:
    generator = torch.Generator().manual_seed(seed)
    return MetaTensor(
        torch.rand(1, *shape, generator=generator),
        affine=torch.from_numpy(affine_from((1.0, 1.0, 1.0))),
    )


@pytest.fixture
def folds(make_plan, make_package):
    def made(labels=None, average: str = "probabilities", number: int = 3) -> list[ModelPackage]:
        plan = make_plan(patch=(8, 16, 12), inference=Inference(average=average))
        if labels is not None:
            plan = plan.model_copy(update={"labels": labels})
        return [make_package(plan, seed=seed) for seed in range(1, number + 1)]

    return made


@pytest.mark.parametrize(("labels", "average"), FORMS)
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_every_engine_gives_the_mean_and_the_labels_of_each_member(
    folds, labels, average: str, engine: str, tmp_path: Path
) -> None:
    members = folds(labels, average)
    joined, encoding = join_packages(members), members[0].plan.encoding
    windows = torch.randn(2, 1, *joined.plan.patch_size)
    request = EngineRequest(engine, CPU, tuple(windows.shape), tmp_path)
    plain = make_engine(joined, request)(windows).clone()
    shown = make_engine(joined, replace(request, shows_members=True))(windows).clone()
    torch.testing.assert_close(shown[:, : plain.shape[1]], plain, rtol=1e-3, atol=1e-3)
    with torch.inference_mode():
        for number, member in enumerate(members):
            probs = encoding.probabilities(member.build()(windows))
            expected = encoding.class_indices(probs.transpose(0, 1))
            own = shown[:, plain.shape[1] + number]
            assert (own == expected).float().mean() > 0.999
            assert len(expected.unique()) > 1


def test_a_graph_with_mirror_images_keeps_the_labels_of_the_window_itself(folds) -> None:
    joined = join_packages(folds())
    windows = torch.randn(1, 1, *joined.plan.patch_size)
    request = EngineRequest("torch", CPU, tuple(windows.shape), shows_members=True)
    plain = make_engine(joined, request)(windows)
    own = joined.plan.encoding.num_channels
    engine = CudaEngine(
        shown_members(joined)(),
        CPU,
        mirror_axes=(0, 2),
        precision=torch.float32,
        activation=beside_members(softmax, own),
        num_maps=own,
    )
    found = engine(windows)
    torch.testing.assert_close(found[:, own:], plain[:, own:])
    assert (found[:, :own] - plain[:, :own]).abs().max() > 1e-3
    torch.testing.assert_close(found[:, :own].sum(dim=1), torch.ones_like(found[:, 0]))


def dice_of(one: np.ndarray, other: np.ndarray, value: int) -> tuple[int, int]:
    a, b = one == value, other == value
    return 2 * int((a & b).sum()), int(a.sum() + b.sum())


@pytest.mark.parametrize("mirror_axes", [(), (0, 1)])
def test_agreement_is_the_pairwise_dice_of_all_members(folds, mirror_axes) -> None:
    """One window, so that counts over windows are those of the image."""
    members = folds()
    joined, image = join_packages(members), volume()
    plan = joined.plan.model_copy(
        update={"inference": Inference(tta=bool(mirror_axes), mirror_axes=mirror_axes)}
    )
    predictor = Predictor(replace(joined, plan=plan), engine="torch")
    assert predictor.predict(image).features is None
    predictor.gather_features()
    found = predictor.predict(image).features
    assert found is not None
    alone = [Predictor(one, engine="torch").predict(image).label.numpy()[0] for one in members]
    for label in joined.plan.labels:
        sums = [dice_of(a, b, label.value) for a, b in combinations(alone, 2)]
        expected = sum(both for both, _ in sums) / sum(sizes for _, sizes in sums)
        assert 0.0 < expected < 1.0
        assert found[label.name]["agreement"] == pytest.approx(expected, abs=1e-3)


def test_part_models_are_compared_within_their_part() -> None:
    def network(seed: int, classes: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return torch.nn.Conv3d(1, classes, 1)

    networks = [network(0, 3), network(1, 3), network(2, 2)]
    joined = JoinedNetworks(networks, [JoinedPart(2, 0, 1), JoinedPart(1, 0, 1)])
    labels = tuple(LabelClass(name=name, value=number) for number, name in enumerate("abc", 1))
    image = torch.randn(1, 1, 6, 6, 6)
    found = ShownMembers(joined, LabelEncoding(labels))(image)
    torch.testing.assert_close(found[:, :4], joined(image))
    for number, (one, before) in enumerate(zip(networks, (0, 0, 2), strict=True)):
        own = one(image).argmax(dim=1)
        expected = torch.where(own > 0, own + before, own).float()
        torch.testing.assert_close(found[:, 4 + number], expected)
        assert len(own.unique()) > 1


def with_parts(package: ModelPackage, *parts: PackagePart) -> ModelPackage:
    return replace(package, parts=parts, members=sum(part.members for part in parts))


def part(name: str, members: int, structures: int | None = None) -> PackagePart:
    return PackagePart(architecture=name, options={}, members=members, structures=structures)


def test_pairs_are_of_networks_that_segment_the_same(folds) -> None:
    (one,) = folds(number=1)
    assert member_pairs(one) == ()
    assert member_pairs(replace(one, members=3)) == ((0, 1), (0, 2), (1, 2))
    of_parts = with_parts(one, part("unet", 2, 1), part("unet", 1, 3), part("unet", 2, 2))
    assert member_pairs(of_parts) == ((0, 1), (3, 4))
    by_fold = with_parts(one, part("unet", 3), part("unetpp", 3))
    assert member_pairs(by_fold) == ((0, 3), (1, 4), (2, 5))
    uneven = with_parts(one, part("unet", 2), part("unetpp", 1))
    assert member_pairs(uneven) == ((0, 1), (0, 2), (1, 2))
    with pytest.raises(UsageError, match="one network"):
        shown_members(one)


def cases_with_agreement(package: ModelPackage, number: int = 12) -> list[QualityCase]:
    """Segmentations of random images, with made-up scores that follow the agreement."""
    predictor, cases = Predictor(package, engine="torch"), []
    predictor.gather_features()
    for seed in range(number):
        found = predictor.predict(volume(seed=seed)).features
        assert found is not None
        truth = {
            name: StructureTruth(row.get("agreement", 0.0), 1.0, 1.0) for name, row in found.items()
        }
        cases.append(QualityCase(str(seed), found, truth))
    return cases


def test_a_package_that_was_calibrated_with_agreement_uses_it(folds, caplog) -> None:
    joined = join_packages(folds())
    model = fit_quality(cases_with_agreement(joined), basis="held_out", networks=3)
    assert model is not None
    assert "agreement" in model.features
    made = replace(joined, provenance={PREDICTED_QUALITY: model.model_dump(mode="json")})
    predictor = Predictor(made, engine="torch")
    found = predictor.predict(volume())
    assert found.quality is not None
    assert found.features is not None
    assert all(0.0 <= row["agreement"] <= 1.0 for row in found.features.values() if row)
    blind = make_engine(made, replace(predictor._request, shows_members=False))
    predictor.engines = [blind]  # as an int8 network, which has no channels for members
    with caplog.at_level(logging.WARNING):
        found = [predictor.predict(volume(seed=seed)) for seed in (0, 1)]
    assert [one.quality for one in found] == [None, None]
    assert caplog.text.count("predicted quality needs agreement") == 1  # said once


def test_a_conversion_with_other_labels_of_members_is_refused() -> None:
    maps, labels = torch.zeros(1, 3, 10, 10), torch.ones(1, 2, 10, 10)
    wrong = labels.clone()
    wrong[0, 0, 0] = 2.0  # 5 %
    _require_equal(torch.cat([maps, labels], 1), torch.cat([maps, labels], 1), 3)
    with pytest.raises(ModelError, match=r"other labels in 5\.0%"):
        _require_equal(torch.cat([maps, wrong], 1), torch.cat([maps, labels], 1), 3)
