"""Several networks in one package: what it computes, and what cannot be joined."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipelines.registry.exports import WRITERS
from segmed.errors import PackageError, UsageError
from segmed.models import build_model
from segmed.package import ModelPackage
from segmed.package.check import check_package
from segmed.package.ensemble import join_packages, mix_packages
from segmed.plan import Plan


def trained(plan: Plan, seed: int, architecture: str = "unet") -> ModelPackage:
    """A network with its first weights, as if it were the fold `seed`."""
    torch.manual_seed(seed)
    options = {"widths": (4, 8), "strides": ((1, 1), (2, 2))}
    network = build_model(architecture, spatial_dims=2, in_channels=1, num_classes=2, **options)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    made = {"data": "tiny", "fold": seed, "training_distributions": {"volume": [1.0]}}
    return ModelPackage(architecture, options, plan, network.state_dict(), made)


@pytest.fixture
def members(tiny_2d_plan: Plan) -> list[ModelPackage]:
    return [trained(tiny_2d_plan, seed) for seed in range(3)]


def probabilities(package: ModelPackage, windows: torch.Tensor) -> torch.Tensor:
    return package.build()(windows).softmax(dim=1)


def test_an_ensemble_gives_the_mean_of_its_members_probabilities(
    members: list[ModelPackage], tmp_path: Path
) -> None:
    windows = torch.rand(2, 1, 16, 16)
    apart = [probabilities(member, windows) for member in members]
    assert (apart[0] - apart[1]).abs().max() > 0.05
    place = join_packages(members, {"data_hash": "abc"}).save(tmp_path / "ensemble")
    ensemble = ModelPackage.load(place)
    assert ensemble.members == 3
    torch.testing.assert_close(probabilities(ensemble, windows), torch.stack(apart).mean(dim=0))
    assert ensemble.provenance["data"] == "tiny"
    assert ensemble.provenance["data_hash"] == "abc"
    assert [entry["fold"] for entry in ensemble.provenance["members"]] == [0, 1, 2]
    assert [entry["hash"] for entry in ensemble.provenance["members"]] == [m.hash for m in members]
    assert "training_distributions" not in ensemble.provenance["members"][0]


def test_a_single_network_keeps_the_hash_it_had_before_there_were_ensembles(
    members: list[ModelPackage],
) -> None:
    assert members[0].hash == replace(members[0], members=1).hash
    assert members[0].hash != replace(members[0], members=2).hash


def test_an_ensemble_is_exported_like_any_network(
    members: list[ModelPackage], tmp_path: Path
) -> None:
    import onnxruntime  # noqa: PLC0415 - takes a second

    ensemble = join_packages(members)
    WRITERS["onnx"](ensemble.save(tmp_path / "package"), ensemble, tmp_path / "onnx")
    path = tmp_path / "onnx" / "model.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    windows = torch.rand(1, 1, 16, 16)
    (logits,) = session.run(None, {session.get_inputs()[0].name: windows.numpy()})
    torch.testing.assert_close(
        torch.from_numpy(logits).softmax(dim=1)[:, :2],
        probabilities(ensemble, windows),
        atol=1e-5,
        rtol=1e-4,
    )


def test_what_is_no_fold_of_the_same_training_is_not_joined(
    members: list[ModelPackage], tiny_2d_plan: Plan
) -> None:
    with pytest.raises(UsageError, match="at least two packages, got 1"):
        join_packages(members[:1])
    with pytest.raises(UsageError, match=r"package 2 .* differs from the first"):
        join_packages([members[0], trained(tiny_2d_plan, 1, "unetpp")])
    with pytest.raises(UsageError, match="package 1 is an ensemble itself"):
        join_packages([join_packages(members), members[0]])


def test_an_ensemble_whose_number_of_members_was_edited_is_refused(
    members: list[ModelPackage], tmp_path: Path
) -> None:
    place = join_packages(members).save(tmp_path / "ensemble")
    card = place / "package.json"
    card.write_text(
        card.read_text(encoding="utf-8").replace('"members": 3', '"members": 2'), encoding="utf-8"
    )
    with pytest.raises(PackageError, match="was changed after it was written"):
        ModelPackage.load(place)


def test_several_architectures_are_averaged_in_one_package(
    members: list[ModelPackage], tiny_2d_plan: Plan, tmp_path: Path
) -> None:
    others = [trained(tiny_2d_plan, seed, "unetpp") for seed in (3, 4)]
    mixed = mix_packages([join_packages(members), join_packages(others)])
    place = mixed.save(tmp_path / "mixed")
    found = ModelPackage.load(place)
    assert (found.architecture, found.members) == ("unet+unetpp", 5)
    assert check_package(place).hash == found.hash == mixed.hash
    windows = torch.rand(2, 1, 16, 16)
    apart = [probabilities(member, windows) for member in (*members, *others)]
    torch.testing.assert_close(probabilities(found, windows), torch.stack(apart).mean(dim=0))
    assert [entry["fold"] for entry in found.provenance["members"]] == [0, 1, 2, 3, 4]
    assert [part.architecture for part in found.parts] == ["unet", "unetpp"]


def test_order_of_architectures_is_part_of_what_a_mixed_package_is(
    members: list[ModelPackage], tiny_2d_plan: Plan
) -> None:
    other = trained(tiny_2d_plan, 3, "unetpp")
    assert mix_packages([members[0], other]).hash != mix_packages([other, members[0]]).hash


def test_card_without_parts_is_written_as_before(
    members: list[ModelPackage], tmp_path: Path
) -> None:
    place = members[0].save(tmp_path / "one")
    assert "parts" not in (place / "package.json").read_text(encoding="utf-8")


def test_what_cannot_be_mixed_is_refused(members: list[ModelPackage], tiny_2d_plan: Plan) -> None:
    other = trained(tiny_2d_plan, 3, "unetpp")
    with pytest.raises(UsageError, match="at least two packages, got 1"):
        mix_packages(members[:1])
    with pytest.raises(UsageError, match="join the folds of each architecture first"):
        mix_packages(members[:2])
    with pytest.raises(UsageError, match="join the folds of each architecture first"):
        mix_packages([mix_packages([members[0], other]), members[1]])
    moved = tiny_2d_plan.model_copy(update={"patch_size": (32, 32)})
    with pytest.raises(UsageError, match="unetpp has another plan than unet"):
        mix_packages([members[0], replace(other, plan=moved)])


@pytest.mark.parametrize("is_mixed", [False, True])
def test_bundle_of_an_ensemble_gives_its_network(
    members: list[ModelPackage], tiny_2d_plan: Plan, tmp_path: Path, *, is_mixed: bool
) -> None:
    from monai.bundle import ConfigParser  # noqa: PLC0415 - takes seconds

    ensemble = join_packages(members)
    if is_mixed:
        ensemble = mix_packages([ensemble, trained(tiny_2d_plan, 3, "unetpp")])
    WRITERS["bundle"](ensemble.save(tmp_path / "package"), ensemble, tmp_path / "bundle")
    parser = ConfigParser()
    parser.read_config(tmp_path / "bundle" / "configs" / "inference.json")
    parser["bundle_root"] = str(tmp_path / "bundle")
    windows = torch.rand(1, 1, 16, 16)
    network = parser.get_parsed_content("network")
    torch.testing.assert_close(network(windows), ensemble.build()(windows))
