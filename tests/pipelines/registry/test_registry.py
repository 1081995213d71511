"""Versions, aliases and references over an embedded registry."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch

from pipelines.registry import promotion_lock as promotion_module
from pipelines.registry.promotion_lock import promotion_lock
from pipelines.registry.reference import CHALLENGER, CHAMPION, PREVIOUS
from pipelines.registry.versions import Registry
from segmed.errors import PackageError, UsageError
from segmed.package import ModelPackage
from segmed.plan import Plan


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGMED_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def registry(working_folder: Path) -> Registry:
    return Registry(working_folder)


def package_of(plan: Plan, value: float) -> ModelPackage:
    """A package by its bytes only: the registry never builds the network."""
    return ModelPackage("unet", {"widths": [4, 8]}, plan, {"weight": torch.full((4,), value)})


def saved(folder: Path, plan: Plan, value: float) -> Path:
    return package_of(plan, value).save(folder / f"package{value}")


def test_registered_package_is_found_by_alias_version_folder_and_zip(
    registry: Registry, tmp_path: Path, plan: Plan
) -> None:
    folder = saved(tmp_path, plan, 1.0)
    version = registry.register(folder, "hippo", alias=CHAMPION)
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", folder)
    wanted = ModelPackage.load(folder).hash
    for reference in ("models:/hippo@champion", "models:/hippo/1", folder, archive):
        resolved = registry.resolve(reference)
        assert resolved.hash == resolved.load().hash == wanted
    assert (version.version, version.aliases) == ("1", (CHAMPION,))


def test_same_package_is_registered_once(registry: Registry, tmp_path: Path, plan: Plan) -> None:
    folder = saved(tmp_path, plan, 1.0)
    first = registry.register(folder, "hippo")
    assert registry.register(folder, "hippo", alias=CHAMPION).version == first.version
    assert len(registry.versions("hippo")) == 1


def test_promotion_and_rollback_move_three_aliases(
    registry: Registry, tmp_path: Path, plan: Plan
) -> None:
    registry.register(saved(tmp_path, plan, 1.0), "hippo", alias=CHAMPION)
    registry.register(saved(tmp_path, plan, 2.0), "hippo", alias=CHALLENGER)
    registry.promote("hippo", "2", expected_champion="1")
    aliases = {entry.version: entry.aliases for entry in registry.versions("hippo")}
    assert aliases == {"1": (PREVIOUS,), "2": (CHAMPION,)}
    assert registry.rollback("hippo").version == "1"
    aliases = {entry.version: entry.aliases for entry in registry.versions("hippo")}
    assert aliases == {"1": (CHAMPION,), "2": (PREVIOUS,)}


def test_decision_against_a_former_champion_is_refused(
    registry: Registry, tmp_path: Path, plan: Plan
) -> None:
    registry.register(saved(tmp_path, plan, 1.0), "hippo", alias=CHAMPION)
    registry.register(saved(tmp_path, plan, 2.0), "hippo")
    with pytest.raises(UsageError, match="compare again"):
        registry.promote("hippo", "2", expected_champion=None)
    assert registry.version("hippo", CHAMPION).version == "1"


def test_second_promotion_at_the_same_time_is_refused(
    registry: Registry, tmp_path: Path, plan: Plan
) -> None:
    registry.register(saved(tmp_path, plan, 1.0), "hippo")
    with (
        promotion_lock(registry.client, registry.uri, "hippo"),
        pytest.raises(UsageError, match="another promotion"),
    ):
        registry.promote("hippo", "1", expected_champion=None)
    registry.promote("hippo", "1", expected_champion=None)
    assert registry.names() == ["hippo"]


def test_lock_of_a_process_that_died_is_removed_after_a_while(
    registry: Registry, tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register(saved(tmp_path, plan, 1.0), "hippo")
    registry.client.create_registered_model("segmed-lock--hippo")
    with pytest.raises(UsageError, match="another promotion"):
        registry.promote("hippo", "1", expected_champion=None)
    monkeypatch.setattr(promotion_module, "STALE_SECONDS", 0.0)
    registry.promote("hippo", "1", expected_champion=None)
    assert registry.version("hippo", CHAMPION).version == "1"
    assert [model.name for model in registry.client.search_registered_models()] == ["hippo"]


@pytest.mark.parametrize("part", ["labels", "channels", "spacing_mm"])
def test_other_labels_channels_or_spacing_are_another_model(
    registry: Registry, tmp_path: Path, plan: Plan, part: str
) -> None:
    registry.register(saved(tmp_path, plan, 1.0), "hippo")
    coarse = plan.preprocessing.model_copy(update={"spacing_mm": (2.0, 1.0, 1.0)})
    changes = {
        "labels": {"labels": plan.labels[:1]},
        "channels": {"channels": (plan.channels[0].model_copy(update={"modality": "CT"}),)},
        "spacing_mm": {"preprocessing": coarse},
    }
    with pytest.raises(UsageError, match=rf"its {part} differ from version 1.*another name"):
        registry.register(saved(tmp_path, plan.model_copy(update=changes[part]), 3.0), "hippo")


def test_unknown_names_list_the_known_ones(registry: Registry, tmp_path: Path, plan: Plan) -> None:
    registry.register(saved(tmp_path, plan, 1.0), "hippo")
    with pytest.raises(UsageError, match=r"no model 'liver' is registered in .*: known are hippo"):
        registry.resolve("models:/liver@champion")
    with pytest.raises(UsageError, match="no 'champion': known are 1"):
        registry.resolve("models:/hippo@champion")
    with pytest.raises(UsageError, match="names no model: write"):
        registry.resolve("models:/hippo")


def test_weights_changed_in_the_registry_are_refused(
    registry: Registry, tmp_path: Path, plan: Plan
) -> None:
    registry.register(saved(tmp_path, plan, 1.0), "hippo")
    (weights,) = (tmp_path / "mlartifacts").rglob("model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(PackageError, match="sha256 differs"):
        registry.resolve("models:/hippo/1")


def test_other_package_in_place_of_the_registered_one_is_refused(
    registry: Registry, tmp_path: Path, plan: Plan
) -> None:
    registry.register(saved(tmp_path, plan, 1.0), "hippo")
    (weights,) = (tmp_path / "mlartifacts").rglob("model.safetensors")
    other = saved(tmp_path, plan, 2.0)
    for name in ("model.safetensors", "plan.yaml", "package.json"):
        shutil.copy(other / name, weights.parent / name)
    with pytest.raises(PackageError, match="the registry has"):
        registry.resolve("models:/hippo/1")


def test_cached_model_is_found_while_the_registry_does_not_answer(
    registry: Registry, tmp_path: Path, plan: Plan
) -> None:
    registry.register(saved(tmp_path, plan, 1.0), "hippo", alias=CHAMPION)
    first = registry.resolve("models:/hippo@champion")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert registry.resolve("models:/hippo@champion") == first


def test_run_that_logged_the_package_lends_it_to_the_version(
    registry: Registry, tmp_path: Path, plan: Plan
) -> None:
    folder = saved(tmp_path, plan, 1.0)
    once = registry.register(folder, "hippo")
    again = registry.register(folder, "other", once.run_id)
    assert again.run_id == once.run_id
    assert len(list((tmp_path / "mlartifacts").rglob("model.safetensors"))) == 1


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_damaged_copy_in_the_cache_is_fetched_anew(
    registry: Registry, tmp_path: Path, plan: Plan, cache: Path, damage: str
) -> None:
    registry.register(saved(tmp_path, plan, 1.0), "hippo")
    registry.resolve("models:/hippo/1")
    (weights,) = (cache / "packages").rglob("model.safetensors")
    sound = weights.read_bytes()
    if damage == "cut":
        weights.write_bytes(sound[:-1])
    elif damage == "changed":
        weights.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    else:
        weights.unlink()
    assert registry.resolve("models:/hippo/1").load().hash == registry.version("hippo", "1").hash
    assert weights.read_bytes() == sound
    assert [place.name for place in (cache / "packages").iterdir()] == [weights.parent.name]


def test_versions_belong_to_the_run_that_logged_the_package(
    registry: Registry, tmp_path: Path, plan: Plan
) -> None:
    folder = saved(tmp_path, plan, 1.0)
    once = registry.register(folder, "hippo")
    assert registry.register(folder, "other").run_id == once.run_id
    assert len(list((tmp_path / "mlartifacts").rglob("model.safetensors"))) == 1
