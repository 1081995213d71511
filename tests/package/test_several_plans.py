"""Packages whose networks have several plans: made, written, read, taken apart, and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_data import hippocampus_package, tiny_plan

from pipelines.registry.exports import WRITERS
from segmed.acceleration.windows import fewer_windows
from segmed.errors import PackageError, UsageError
from segmed.manifest import read_manifest
from segmed.models import build_model
from segmed.package import ModelPackage
from segmed.package.check import check_package
from segmed.package.ensemble import join_packages, mix_packages
from segmed.package.mixed_plans import mix_plans
from segmed.package.several_plans import of_each_plan
from segmed.plan import Plan, plan_hash


@pytest.fixture(scope="module")
def flat_plan() -> Plan:
    """The plan of slices beside that of volumes."""
    plan = tiny_plan()
    fields = {**plan.model_dump(), "spatial_dims": 2, "slice_axis": 2, "patch_size": (16, 16)}
    return Plan.model_validate({**fields, "networks": {}})


def flat_package(plan: Plan, seed: int, architecture: str = "unet") -> ModelPackage:
    options = {"widths": [4, 8], "strides": [[1, 1], [2, 2]]}
    torch.manual_seed(seed)
    network = build_model(architecture, spatial_dims=2, in_channels=1, num_classes=3, **options)
    return ModelPackage(architecture, options, plan, network.state_dict(), {"fold": seed})


@pytest.fixture(scope="module")
def pieces(flat_plan: Plan) -> list[ModelPackage]:
    """Two folds in 3D; a fold each of two architectures in 2D."""
    solid = join_packages([hippocampus_package(0), hippocampus_package(1)])
    flat = mix_packages([flat_package(flat_plan, 2), flat_package(flat_plan, 3, "unetpp")])
    return [solid, flat]


@pytest.fixture(scope="module")
def whole(pieces: list[ModelPackage]) -> ModelPackage:
    return mix_plans(pieces, {"data_hash": "abc"})


def same_networks(one: ModelPackage, other: ModelPackage) -> bool:
    return one.float32_hash == other.float32_hash


def test_a_package_of_two_plans_is_written_and_read(
    whole: ModelPackage, pieces: list[ModelPackage], tmp_path: Path
) -> None:
    place = whole.save(tmp_path / "package")
    assert sorted(path.name for path in place.iterdir()) == [
        "model.safetensors",
        "package.json",
        "plan-2.yaml",
        "plan.yaml",
    ]
    for found in (ModelPackage.load(place), check_package(place)):
        assert found.hash == whole.hash
        assert (found.architecture, found.members) == ("unet-3d+unet-2d+unetpp-2d", 4)
        assert [plan_hash(plan) for plan in (found.plan, *found.plans)] == [
            plan_hash(piece.plan) for piece in pieces
        ]
        assert found.provenance["data_hash"] == "abc"
        assert len(found.provenance["members"]) == 4
    assert "2D and 3D" in repr(whole)


def test_each_plan_gets_its_networks_back(
    whole: ModelPackage, pieces: list[ModelPackage], tmp_path: Path
) -> None:
    read = ModelPackage.load(whole.save(tmp_path / "package"))
    for found, piece in zip(of_each_plan(read), pieces, strict=True):
        assert same_networks(found, piece)
        windows = torch.rand(1, 1, *piece.plan.patch_size)
        torch.testing.assert_close(found.build()(windows), piece.build()(windows))
    single = mix_plans([flat_package(pieces[1].plan, 5), hippocampus_package(6)])
    assert same_networks(of_each_plan(single)[1], hippocampus_package(6))
    assert of_each_plan(pieces[0]) == [pieces[0]]


def test_packages_of_one_plan_stay_as_they_were(pieces: list[ModelPackage], tmp_path: Path) -> None:
    card = (pieces[1].save(tmp_path / "one") / "package.json").read_text(encoding="utf-8")
    assert all("plan" not in part for part in json.loads(card)["parts"])
    assert replace(pieces[1], plans=()).hash == pieces[1].hash


def test_order_and_plans_are_part_of_the_identity(
    whole: ModelPackage, pieces: list[ModelPackage]
) -> None:
    other = pieces[1].plan.model_copy(update={"patch_size": (32, 32)})
    assert replace(whole, plans=(other,)).hash != whole.hash
    assert mix_plans(pieces[::-1]).hash != whole.hash


@pytest.mark.parametrize("name", ["plan.yaml", "plan-2.yaml"])
def test_a_changed_or_missing_plan_is_refused(
    whole: ModelPackage, tmp_path: Path, name: str
) -> None:
    place = whole.save(tmp_path / "package")
    kept = (place / name).read_bytes()
    (place / name).write_bytes(kept + b"\n")
    for read in (ModelPackage.load, check_package):
        with pytest.raises(PackageError, match=rf"{name} is not the file that was written"):
            read(place)
    (place / name).unlink()
    for read in (ModelPackage.load, check_package):
        with pytest.raises(PackageError, match=rf"{name} is missing"):
            read(place)


@pytest.mark.parametrize("number", [2, -1, 99])
def test_a_card_with_plans_that_are_not_there_is_refused(
    whole: ModelPackage, tmp_path: Path, number: int
) -> None:
    card = whole.save(tmp_path / "package") / "package.json"
    content = json.loads(card.read_text(encoding="utf-8"))
    content["parts"][-1]["plan"] = number
    card.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(PackageError, match=r"plan"):
        ModelPackage.load(card.parent)


def test_what_cannot_be_one_package_is_refused(
    whole: ModelPackage, pieces: list[ModelPackage], flat_plan: Plan
) -> None:
    with pytest.raises(UsageError, match="2 to 4 plans can be one package, got 1"):
        mix_plans(pieces[:1])
    with pytest.raises(UsageError, match="two packages have the same plan"):
        mix_plans([pieces[0], hippocampus_package(7)])
    with pytest.raises(UsageError, match=r"package 1 .* has several plans or part models already"):
        mix_plans([whole, pieces[1]])
    cropped = flat_plan.preprocessing.model_copy(update={"crop_nonzero": True})
    other = flat_package(flat_plan.model_copy(update={"preprocessing": cropped}), 8)
    with pytest.raises(UsageError, match=r"package 2 .* differs from the first .* 'crop_nonzero'"):
        mix_plans([pieces[0], other])
    with pytest.raises(UsageError, match="join the folds of each architecture first"):
        mix_packages([whole, pieces[0]])


@pytest.mark.parametrize("form", ["onnx", "openvino", "bundle"])
def test_forms_of_a_single_network_are_refused_by_name(
    whole: ModelPackage, tmp_path: Path, form: str
) -> None:
    place = whole.save(tmp_path / "package")
    with pytest.raises(UsageError, match=rf"export {form} takes one network .*2D and 3D"):
        WRITERS[form](place, whole, tmp_path / form)
    assert not (tmp_path / form).exists()


def test_a_zip_has_all_plans(whole: ModelPackage, tmp_path: Path) -> None:
    place = whole.save(tmp_path / "package")
    WRITERS["zip"](place, whole, tmp_path / "package.zip")
    assert ModelPackage.load(tmp_path / "package.zip").hash == whole.hash


def test_a_network_of_several_plans_is_neither_built_nor_thinned_out(
    whole: ModelPackage, sample_manifest_path: Path
) -> None:
    with pytest.raises(UsageError, match="building the network takes one network on one grid"):
        whole.build()
    with pytest.raises(UsageError, match="the search for fewer windows takes one network"):
        fewer_windows(whole, read_manifest(sample_manifest_path))
