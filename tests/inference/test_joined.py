"""A joined label map of several models: priority, numbers, names, and what cannot be joined."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "archive"))  # for tiny_model.py

from tiny_model import tiny_package

from segmed.archive.model import model_of
from segmed.errors import UsageError
from segmed.inference import Predictor
from segmed.inference.joined import JoinedPredictor, Joining, joined_name, joined_parts
from segmed.metatensor import MetaTensor
from segmed.metrics.training_norms import DISTRIBUTIONS
from segmed.package import ModelPackage
from segmed.structures import LabelClass

PLAIN = {"device": "cpu", "engine": "torch"}


def package(
    seed: int,
    names: Sequence[str],
    *,
    values: Sequence[int] = (1, 2),
    edge_mm: float = 1.0,
    channels: int = 1,
) -> ModelPackage:
    """A tiny model of two structures."""
    labels = tuple(LabelClass(name=n, value=v) for n, v in zip(names, values, strict=True))
    made = tiny_package(seed=seed, edge_mm=edge_mm, channels=channels)
    return replace(made, plan=made.plan.model_copy(update={"name": names[0], "labels": labels}))


@pytest.fixture
def image() -> MetaTensor:
    voxels = torch.from_numpy(np.random.default_rng(3).normal(size=(1, 18, 16, 14)))
    return MetaTensor(voxels.float(), affine=torch.eye(4, dtype=torch.float64))


@pytest.fixture
def three() -> list[ModelPackage]:
    """Models of other spacings and of other numbers."""
    return [
        package(0, ["liver", "lesion"], values=(4, 9)),
        package(1, ["spleen", "cyst"], edge_mm=2.0),
        package(2, ["aorta", "clot"], values=(2, 1)),
    ]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0)])
def test_model_named_first_has_the_voxels_that_several_claim(
    image: MetaTensor, three: list[ModelPackage], order: tuple[int, ...]
) -> None:
    packages = [three[number] for number in order]
    whole = JoinedPredictor(packages, Joining(tuple("abc"[: len(order)])), **PLAIN)
    found = whole.segment(whole.prepare(image))
    alone = [np.asarray(Predictor(p, **PLAIN).predict(image).label) for p in packages]
    names = np.full(image.shape, "", object)
    for one, label in zip(packages, alone, strict=True):
        for entry in one.plan.labels:
            names[(label == entry.value) & (names == "")] = entry.name
    # An earlier model keeps a voxel also from the second structure of a later one.
    for entry in whole.labels:
        assert (np.asarray(found.label) == entry.value).tolist() == (names == entry.name).tolist()
    assert [entry.value for entry in whole.labels] == list(range(1, 2 * len(order) + 1))
    assert {entry.made_by.version for entry in whole.labels if entry.made_by} == {
        one.hash for one in packages
    }
    for one, label in list(zip(packages, alone, strict=True))[1:]:
        for entry in one.plan.labels:
            drawn = (label == entry.value).sum()
            kept = (names == entry.name).sum()
            lost = found.overpainted.get(entry.name, 0.0)
            assert lost == pytest.approx((drawn - kept) / drawn if drawn else 0.0)


def test_regions_keep_what_lies_within_them(three: list[ModelPackage]) -> None:
    tumour = three[1]
    labels = (
        LabelClass(name="tumour", value=1, region=(1, 3)),
        LabelClass(name="core", value=3, region=(3,)),
    )
    tumour = replace(tumour, plan=tumour.plan.model_copy(update={"labels": labels}))
    _, part = joined_parts([three[0], tumour], Joining(("liver", "tumour")))
    assert [(entry.value, entry.region) for entry in part.labels] == [(3, (3, 4)), (4, (4,))]
    assert part.table.tolist() == [0, 3, 0, 4]


@pytest.mark.parametrize(
    ("mine", "yours"), [("lesion", "lesion"), ("Left_Kidney", "left kidney"), ("A1", "a1")]
)
def test_names_that_meet_are_refused_or_have_their_model_in_front(mine: str, yours: str) -> None:
    packages = [package(0, ["liver", mine]), package(1, ["spleen", yours])]
    with pytest.raises(UsageError, match="models liver and spleen both have a structure"):
        joined_parts(packages, Joining(("liver", "spleen")))
    parts = joined_parts(packages, Joining(("liver", "spleen"), "prefix"))
    names = [entry.name for part in parts for entry in part.labels]
    assert names == ["liver", f"liver {mine}", "spleen", f"spleen {yours}"]


def test_models_of_other_channels_are_not_joined() -> None:
    packages = [package(0, ["a", "b"]), package(1, ["c", "d"], channels=2)]
    with pytest.raises(UsageError, match="model two takes the channels c0, c1, model one c0"):
        joined_parts(packages, Joining(("one", "two")))


def test_one_model_and_an_unknown_rule_of_names_are_refused() -> None:
    with pytest.raises(UsageError, match="needs two or more models, got 1"):
        Joining(("one",))
    with pytest.raises(UsageError, match="known are prefix, refuse"):
        Joining(("one", "two"), "merge")


def test_mirror_images_must_be_decided_where_the_plans_differ(three: list[ModelPackage]) -> None:
    plan = three[1].plan
    inference = plan.inference.model_copy(update={"tta": True})
    mixed = [three[0], replace(three[1], plan=plan.model_copy(update={"inference": inference}))]
    joining = Joining(("one", "two"))
    with pytest.raises(UsageError, match="give --tta or --no-tta"):
        JoinedPredictor(mixed, joining, **PLAIN)
    assert JoinedPredictor(mixed, joining, tta=False, **PLAIN).tta is False


def test_identity_depends_on_models_priority_and_names(three: list[ModelPackage]) -> None:
    joining = Joining(("one", "two"))
    hashes = [
        model_of(three[:2], joining).hash,
        model_of(three[1::-1], joining).hash,
        model_of(three[1:], joining).hash,
        model_of(three[:2]).hash,
    ]
    assert len(set(hashes)) == 4
    assert model_of(three[:2], Joining(("other", "two"))).hash == hashes[0]
    assert joined_name(three[:2]) == "unet liver > unet spleen"
    assert joined_name(three * 3) == "9 models: unet liver first"


def test_training_volumes_of_each_model_count_for_its_own_structures() -> None:
    norms = {"volume_ml:lesion": [1.0, 2.0], "intensity:0:median": [5.0], "flagged": [0.0]}
    packages = [
        replace(package(seed, [organ, "lesion"]), provenance={DISTRIBUTIONS: norms})
        for seed, organ in enumerate(("liver", "spleen"))
    ]
    model = model_of(packages, Joining(("liver", "spleen"), "prefix"))
    assert model.norms == {
        "volume_ml:liver lesion": [1.0, 2.0],
        "volume_ml:spleen lesion": [1.0, 2.0],
    }
