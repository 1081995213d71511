"""A plan on disk: it explains itself, and comes back as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from segmed.errors import UsageError
from segmed.manifest import read_manifest
from segmed.plan import Plan, plan_hash, read_plan, to_yaml, write_plan
from segmed.plan.make import make_plan


@pytest.fixture(scope="module")
def plan(sample_manifest_path: Path) -> Plan:
    return make_plan(read_manifest(sample_manifest_path))


def test_plan_of_the_sample_follows_its_facts(plan: Plan) -> None:
    assert plan.spatial_dims == 3
    assert plan.preprocessing.spacing_mm == (1.0, 1.0, 1.0)
    assert plan.patch_size == (32, 40, 32)
    assert plan.num_classes == 3
    assert plan.recipe.augmentation.flip_axes == (0,)
    assert set(plan.networks) == {
        "fcn32s",
        "fcn16s",
        "fcn8s",
        "unet",
        "unetpp",
        "unet3plus",
        "deeplabv3plus",
    }


def test_plan_comes_back_with_its_reasons(plan: Plan, tmp_path: Path) -> None:
    path = write_plan(plan, tmp_path / "plan.yaml")
    assert read_plan(path) == plan
    assert plan.reasons["patch_size"] in read_plan(path).reasons.values()


def test_each_reason_stands_above_its_field(plan: Plan) -> None:
    lines = to_yaml(plan).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("patch_size:"))
    assert lines[at - 1].startswith("# ")


def test_hash_ignores_reasons_and_sees_every_setting(plan: Plan) -> None:
    assert plan_hash(plan.model_copy(update={"reasons": {}})) == plan_hash(plan)
    recipe = plan.recipe.model_copy(update={"batch_size": 3})
    assert plan_hash(plan.model_copy(update={"recipe": recipe})) != plan_hash(plan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "schema version 99"),
        ({"patch_size": [0, 1, 1]}, "patch_size"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_wrong_plan_is_refused_by_field(
    plan: Plan, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    content = {**yaml.safe_load(to_yaml(plan)), **change}
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        read_plan(path)


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "\x00"])
def test_text_that_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="plan"):
        read_plan(path)
