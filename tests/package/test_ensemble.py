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
from segmed.package.ensemble import join_packages
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
    card.write_text(card.read_text().replace('"members": 3', '"members": 2'))
    with pytest.raises(PackageError, match="was changed after it was written"):
        ModelPackage.load(place)
