"""Packages of a cascade: made, written, read, taken apart, joined, and refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_data import hippocampus_package, tiny_plan

from pipelines.registry.card import card_of
from pipelines.registry.exports import WRITERS
from segmed.acceleration.windows import fewer_windows
from segmed.errors import UsageError
from segmed.inference import Predictor
from segmed.manifest import read_manifest
from segmed.package import ModelPackage
from segmed.package.cascade import stages_of, with_first_stage
from segmed.package.check import check_package
from segmed.package.ensemble import join_packages, mix_packages
from segmed.package.mixed_plans import mix_plans
from segmed.package.several_plans import difference_of
from segmed.plan import Plan
from segmed.plan.built import planned_network


@pytest.fixture(scope="module")
def second_plan() -> Plan:
    return tiny_plan().model_copy(update={"refines": True, "patch_size": (12, 12, 12)})


def second_stage(plan: Plan, seed: int) -> ModelPackage:
    options = dict(plan.networks["unet"].options)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = planned_network(plan, "unet", options)
    return ModelPackage("unet", options, plan, network.state_dict(), {"fold": seed})


def cascade(plan: Plan, seed: int = 0) -> ModelPackage:
    return with_first_stage(second_stage(plan, seed), hippocampus_package(seed + 10))


def same_networks(one: ModelPackage, other: ModelPackage) -> bool:
    return one.float32_hash == other.float32_hash


def test_a_cascade_is_written_read_and_taken_apart(second_plan: Plan, tmp_path: Path) -> None:
    whole = cascade(second_plan)
    read = ModelPackage.load(whole.save(tmp_path / "package"))
    assert read.hash == whole.hash
    assert check_package(tmp_path / "package").hash == whole.hash
    second, first = stages_of(read)
    assert same_networks(second, second_stage(second_plan, 0))
    assert same_networks(first, hippocampus_package(10))
    assert read.provenance["fold"] == 0, "that of the second stage"
    assert "in two stages, 2 networks" in repr(read)
    assert "a cascade of two stages, 2 networks" in card_of(read)


def test_another_first_stage_makes_another_model(second_plan: Plan) -> None:
    one = cascade(second_plan)
    other = with_first_stage(second_stage(second_plan, 0), hippocampus_package(99))
    assert one.hash != other.hash


def test_a_cascade_of_three_plans_is_refused_by_name(second_plan: Plan) -> None:
    whole = cascade(second_plan)
    third = whole.parts[1].model_copy(update={"plan": 2})
    state = {**whole.state, **{f"members.2.{k}": v for k, v in hippocampus_package().state.items()}}
    odd = replace(
        whole, parts=(*whole.parts, third), plans=(*whole.plans, tiny_plan()), members=3,
        state=state,
    )  # fmt: skip
    with pytest.raises(UsageError, match="is a cascade of 3 plans, and one has two"):
        Predictor(odd, device="cpu")


def test_folds_are_joined_stage_by_stage(second_plan: Plan, tmp_path: Path) -> None:
    joined = join_packages([cascade(second_plan, fold) for fold in (0, 1)], {"data_hash": "abc"})
    read = ModelPackage.load(joined.save(tmp_path / "joined"))
    assert read.hash == joined.hash
    second, first = stages_of(read)
    assert (second.members, first.members, read.members) == (2, 2, 4)
    assert same_networks(first, join_packages([hippocampus_package(10), hippocampus_package(11)]))
    assert read.provenance["data_hash"] == "abc"
    assert [one["fold"] for one in read.provenance["members"]] == [0, 1]


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        (lambda plan: with_first_stage(hippocampus_package(), hippocampus_package()),
         "is no second stage"),
        (lambda plan: with_first_stage(cascade(plan), hippocampus_package()),
         "has its first stage already"),
        (lambda plan: with_first_stage(second_stage(plan, 0), cascade(plan)),
         "cannot be a first stage"),
        (lambda plan: with_first_stage(
            second_stage(plan.model_copy(update={"labels": plan.labels[:1]}), 0),
            hippocampus_package()), "share their labels"),
        (lambda plan: stages_of(hippocampus_package()), "is no cascade"),
        (lambda plan: stages_of(second_stage(plan, 0)), "first stage and has none"),
        (lambda plan: Predictor(second_stage(plan, 0), device="cpu"), "first stage and has none"),
        (lambda plan: Predictor([hippocampus_package(), cascade(plan)], device="cpu"),
         r"package 2 \(unet\+unet\) is a cascade"),
        (lambda plan: mix_plans([cascade(plan), hippocampus_package()]), "several plans"),
        (lambda plan: mix_packages([cascade(plan), hippocampus_package()]), "not one a package"),
        (lambda plan: join_packages([cascade(plan), hippocampus_package()]), "differs|ensemble"),
    ],
    ids=["no_second", "twice", "first_refines", "labels", "plain", "alone", "predicted_alone",
         "averaged", "mixed_plans", "mixed", "joined"],
)  # fmt: skip
def test_what_is_no_cascade_is_refused(second_plan: Plan, made, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        made(second_plan)


def test_plans_of_cascades_are_averaged_with_none(second_plan: Plan) -> None:
    assert difference_of(second_plan, tiny_plan()) == "refines"
    assert difference_of(tiny_plan(), second_plan) == "refines"
    assert difference_of(second_plan, second_plan) == "refines", "each has a first stage of its own"
    assert difference_of(tiny_plan(), tiny_plan()) == ""


@pytest.mark.parametrize("form", ["onnx", "openvino", "bundle"])
def test_exports_of_one_network_refuse_a_cascade(
    second_plan: Plan, form: str, tmp_path: Path
) -> None:
    whole = cascade(second_plan)
    place = whole.save(tmp_path / "package")
    with pytest.raises(UsageError, match="is a cascade, whose second stage refines"):
        WRITERS[form](place, whole, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fewer_windows_are_not_searched_for_a_cascade(
    second_plan: Plan, sample_manifest_path: Path
) -> None:
    with pytest.raises(UsageError, match="is a cascade"):
        fewer_windows(cascade(second_plan), read_manifest(sample_manifest_path))
