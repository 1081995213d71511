"""MONAI's random transforms in a plan: by name, by plain arguments, the same at every draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_data import tiny_plan

from segmed.errors import UsageError
from segmed.manifest import Manifest
from segmed.plan import Plan, plan_hash, read_plan, write_plan
from segmed.plan.extra_augmentation import INTENSITY, SPATIAL
from segmed.training.conditions import check_request
from segmed.training.data import augment, load_cases, make_batch
from segmed.training.device import Device
from segmed.transforms.extra_augmentation import extra_augmentation

CPU = Device(torch.device("cpu"), None, "a test")

REQUIRED: dict[str, dict[str, Any]] = {
    "RandScaleIntensity": {"factors": 0.5},
    "RandScaleIntensityFixedMean": {"factors": 0.5},
    "RandShiftIntensity": {"offsets": 0.5},
    "RandStdShiftIntensity": {"factors": 0.5},
    "RandAdjustContrast": {"gamma": [1.5, 2.0]},
    "RandCoarseDropout": {"holes": 2, "spatial_size": 4, "fill_value": 7.0},
    "RandCoarseShuffle": {"holes": 2, "spatial_size": 4},
    "RandFlip": {"spatial_axis": [0]},
    "RandRotate90": {"spatial_axes": [0, 2]},
    "RandRotate": {"range_x": [0.3, 0.4]},
    "RandZoom": {"min_zoom": 1.2, "max_zoom": 1.4},
    "RandAffine": {"translate_range": [[2, 3], 0, 0]},
    "Rand2DElastic": {"spacing": [4, 4], "magnitude_range": [1, 2]},
    "Rand3DElastic": {"sigma_range": [2, 3], "magnitude_range": [60, 90]},
    "RandGridDistortion": {"distort_limit": [0.2, 0.3]},
}
"""Arguments that a transform needs, or that make its effect large enough to see."""


def with_extra(plan: Plan, *extra: dict[str, Any], flips: tuple[int, ...] = ()) -> Plan:
    content = plan.model_dump(mode="json")
    content["recipe"]["extra_augmentation"] = list(extra)
    content["recipe"]["augmentation"]["flip_axes"] = list(flips)
    return Plan.model_validate(content)


@pytest.mark.parametrize("name", [*INTENSITY, *SPATIAL])
def test_every_transform_of_the_list_changes_a_patch_and_keeps_its_labels_whole(name: str) -> None:
    size = (16, 16) if name == "Rand2DElastic" else (16, 12, 16)
    generator = torch.Generator().manual_seed(1)
    image = torch.rand((2, 1, *size), generator=generator)
    label = torch.zeros((2, *size), dtype=torch.int64)
    label[:, 3:8, 2:9] = 1
    label[:, 8:12, 4:8] = 5
    extra = {"name": name, "arguments": {"prob": 1.0, **REQUIRED.get(name, {})}}
    plan = with_extra(tiny_plan(), extra, flips=(0,)).model_copy(update={"patch_size": size})
    made = extra_augmentation(plan)
    assert made is not None
    moved, classes = made(image, label, [3, 4])
    assert moved.shape == image.shape
    assert moved.dtype == image.dtype
    assert type(moved) is type(classes) is torch.Tensor
    assert not torch.equal(moved, image)
    assert classes.dtype == torch.int64
    assert set(classes.unique().tolist()) == {0, 1, 5}
    assert torch.equal(classes, label) == (name in INTENSITY)
    again = made(image, label, [3, 4])
    assert torch.equal(again[0], moved)
    assert torch.equal(again[1], classes)


def test_batches_of_a_step_are_the_same_whenever_it_is_drawn(
    manifest: Manifest, plan: Plan, cache_dir: Path
) -> None:
    extra = {"name": "RandAffine", "arguments": {"prob": 1.0, "rotate_range": [0.5, 0.0, 0.0]}}
    changed = with_extra(plan, extra, {"name": "RandBiasField", "arguments": {"prob": 1.0}})
    cases = load_cases(manifest, manifest.training[:2], plan, cache_dir)

    def step(which: Plan, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        batch = make_batch(cases, which, seed=0, step=number, share=slice(None))
        return augment(batch, which, CPU)

    first = step(changed, 3)
    step(changed, 4)
    later = step(changed, 3)
    assert torch.equal(first[0], later[0])
    assert torch.equal(first[1], later[1])
    plain = step(
        plan.model_copy(
            update={"recipe": changed.recipe.model_copy(update={"extra_augmentation": ()})}
        ),
        3,
    )
    assert plain[0].shape == first[0].shape
    assert not torch.equal(plain[0], first[0])
    assert not torch.equal(plain[1], first[1])


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"name": "RandCropByPosNegLabel"}, "unknown transform; known are Rand2DElastic"),
    ({"name": "os.system"}, "unknown transform"),
    ({"name": "RandLambda", "arguments": {"func": "print"}}, "unknown transform"),
    ({"name": "RandBiasField", "arguments": {"dtype": "float64"}}, "no argument 'dtype' here"),
    ({"name": "RandAffine", "arguments": {"device": "cuda"}}, "no argument 'device' here"),
    ({"name": "RandGibbsNoise", "arguments": {"alpha": {"_target_": "x"}}}, "must be a number"),
    ({"name": "RandFlip"}, "mirrors all axes, augmentation.flip_axes allows"),
    ({"name": "RandFlip", "arguments": {"spatial_axis": 1}}, r"mirrors \(1,\)"),
    ({"name": "RandBiasField", "argument": {}}, "Extra inputs"),
]


@pytest.mark.parametrize(("extra", "message"), REFUSED)
def test_names_and_arguments_off_the_list_are_refused(extra: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        with_extra(tiny_plan(), extra, flips=(0,))


def test_arguments_that_monai_refuses_fail_before_any_case_is_prepared(
    manifest: Manifest, plan: Plan
) -> None:
    wrong = with_extra(plan, {"name": "RandBiasField", "arguments": {"degree": 0}})
    with pytest.raises(UsageError, match=r"extra_augmentation: RandBiasField: .*degree"):
        check_request(manifest, wrong, "unet", 0)


def test_patch_that_would_change_its_shape_is_refused() -> None:
    turn = {"name": "RandRotate90", "arguments": {"prob": 1.0, "max_k": 1, "spatial_axes": [0, 1]}}
    plan = with_extra(tiny_plan(), turn).model_copy(update={"patch_size": (8, 6, 8)})
    made = extra_augmentation(plan)
    assert made is not None
    with pytest.raises(UsageError, match="needs spatial_axes of equal length"):
        made(torch.rand(1, 1, 8, 6, 8), torch.zeros(1, 8, 6, 8, dtype=torch.int64), [0])


def test_plan_file_keeps_it_and_hashes_of_other_plans_stay(tmp_path: Path) -> None:
    plan = tiny_plan()
    extra = {"name": "RandGibbsNoise", "arguments": {"prob": 0.2, "alpha": [0.3, 0.6]}}
    changed = with_extra(plan, extra)
    write_plan(changed, tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml") == changed
    assert plan_hash(changed) != plan_hash(plan)
    write_plan(plan, tmp_path / "plain.yaml")
    assert plan_hash(read_plan(tmp_path / "plain.yaml")) == plan_hash(plan)
    text = (
        (tmp_path / "plan.yaml")
        .read_text(encoding="utf-8")
        .replace("RandGibbsNoise", "RandNothing")
    )
    (tmp_path / "wrong.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"extra_augmentation.0.name.*unknown transform"):
        read_plan(tmp_path / "wrong.yaml")
