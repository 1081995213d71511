"""Plans of the stages of a cascade: where they differ, and where none is of use."""

from __future__ import annotations

from math import prod

import pytest
from pydantic import ValidationError
from real_facts import real_facts

from segmed.errors import UsageError
from segmed.plan import Plan, plan_hash, read_plan, write_plan
from segmed.plan.make import decide_plan, decide_stage
from segmed.plan.resources import Resources
from segmed.plan.schema import ExtraTransform
from segmed.plan.stages import SEEN_BY_FIRST, Stage

FIVE_MINUTES = Resources(300.0, clock="cpu")


def staged(name: str, stage: Stage | None, **wishes) -> Plan:
    manifest, facts = real_facts(name)
    wishes = {"resources": FIVE_MINUTES, **wishes}
    if stage is None:
        return decide_plan(manifest, facts, **wishes)
    return decide_stage(manifest, facts, stage, **wishes)


@pytest.fixture(scope="module")
def atria() -> dict[Stage | None, Plan]:
    return {stage: staged("left_atrium", stage) for stage in (None, "fullres", "lowres", "cascade")}


def test_a_short_training_refines_what_a_single_network_would_give(atria) -> None:
    own = min(real_facts("left_atrium")[1].median_spacing_mm)
    assert atria["lowres"].preprocessing == atria[None].preprocessing
    assert atria["lowres"].patch_size == atria[None].patch_size
    assert min(atria["lowres"].preprocessing.spacing_mm) > 2 * own
    for stage in ("fullres", "cascade"):
        assert min(atria[stage].preprocessing.spacing_mm) == pytest.approx(own)
    assert [stage for stage, plan in atria.items() if plan.refines] == ["cascade"]


def test_the_second_stage_has_a_patch_of_about_as_many_voxels_as_the_first(atria) -> None:
    first, second = (prod(atria[stage].patch_size) for stage in ("lowres", "cascade"))
    assert second == pytest.approx(first, rel=0.35)
    assert prod(atria["fullres"].patch_size) > 5 * second, "a single stage must see more"


def test_the_label_map_is_one_channel_a_structure(atria) -> None:
    assert [plan.network_channels for plan in atria.values()] == [1, 1, 1, 2]
    three = atria["cascade"].model_copy(update={"labels": staged("cardiac_mr", None).labels})
    assert (three.in_channels, three.label_channels, three.network_channels) == (1, 3, 4)


def test_a_first_stage_is_coarser_where_a_single_network_has_the_own_spacing() -> None:
    manifest, facts = real_facts("left_atrium")
    wishes = {"size": "full", "memory_gb": 5.0, "resources": None}
    single = decide_plan(manifest, facts, **wishes)
    own, first = (staged("left_atrium", stage, **wishes) for stage in ("fullres", "lowres"))
    assert single.preprocessing == own.preprocessing
    assert min(first.preprocessing.spacing_mm) > min(own.preprocessing.spacing_mm)
    assert f"covers {SEEN_BY_FIRST:.0%}"[:8] in first.reasons["preprocessing.spacing_mm"]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("hippocampus", "a first stage would show no more"),
        ("cardiac_mr", "this set has a 2D plan"),
        ("isbi2012", "this set has a 2D plan"),
        ("brain_many_labels", "148 structures are too many, at most 32"),
    ],
)
@pytest.mark.parametrize("stage", ["lowres", "cascade"])
def test_sets_without_a_use_for_a_cascade_are_refused(name: str, fault: str, stage: Stage) -> None:
    with pytest.raises(UsageError, match=fault):
        staged(name, stage)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("left_atrium", "tries a second stage at the images' own spacing"),
        ("hippocampus", ""),
        ("cardiac_mr", ""),
        ("brain_many_labels", ""),
    ],
)
def test_a_plan_says_where_a_cascade_is_of_use(name: str, hint: str) -> None:
    why = staged(name, None).reasons["patch_size"]
    assert ("--cascade" in why) == bool(hint)
    assert hint in why


def test_reasons_name_the_stage(atria) -> None:
    reasons = {stage: plan.reasons["preprocessing.spacing_mm"] for stage, plan in atria.items()}
    assert reasons["lowres"].startswith("first stage of a cascade")
    assert reasons["cascade"].startswith("second stage of a cascade")
    assert "--cascade" not in atria["lowres"].reasons["patch_size"]


def test_plans_without_a_first_stage_keep_their_hash_and_others_their_field(
    atria, tmp_path
) -> None:
    plan, second = atria[None], atria["cascade"]
    assert "refines" not in plan.model_dump()
    assert plan_hash(second) != plan_hash(second.model_copy(update={"refines": False}))
    write_plan(second, tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml") == second


def test_changes_of_intensity_by_monai_are_refused_for_a_second_stage(atria) -> None:
    noise = ExtraTransform(name="RandRicianNoise", arguments={"prob": 0.5})
    recipe = atria["cascade"].recipe.model_copy(update={"extra_augmentation": (noise,)})
    with pytest.raises(ValidationError, match="label map, which this plan refines: leave it out"):
        Plan.model_validate({**atria["cascade"].model_dump(), "recipe": recipe.model_dump()})
